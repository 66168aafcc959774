"""Rewards on the form of an answer, and the random control: right, wrong, hostile, and bounded in time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from llmkit.errors import UserError
from llmkit.rewards.instructions import KINDS, make_instructions
from llmkit.rewards.length import make_length
from llmkit.rewards.overlong import make_overlong
from llmkit.rewards.random import make_random
from llmkit.rewards.regex import make_regex
from llmkit.rewards.repetition import make_repetition
from llmkit.rewards.rows import RowError
from llmkit.rewards.think import make_think


def think(text: str, prompt: Any = "Q", **options: Any) -> float | None:
    return make_think(**options)(prompts=[prompt], completions=[text])[0]


@pytest.mark.parametrize("text", ["<think>a</think>b", " <think>\na\n</think>\n\nb ", "<think>a < b > c</think>b"])
def test_a_thought_and_then_an_answer(text: str) -> None:
    assert think(text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "<think>a",
        "<think>a</think>",
        "<think>a</think>  \n",
        "<think> </think>b",
        "b<think>a</think>b",
        "a</think>b",
        "</think>a<think>b",
        "<think>a</think>b<think>c</think>d",
        "<think><think>a</think>b",
        "<think>a</think>b</think>",
        "<THINK>a</THINK>b",
    ],
)
def test_another_form_is_no_thought(text: str) -> None:
    assert think(text) == 0.0


def test_the_prompt_may_have_opened_the_thought() -> None:
    prefilled = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "<think>\n"}]
    for prompt, options in (("Q<think>\n", {}), (prefilled, {}), ("Q", {"opened": True}), ([], {"opened": True})):
        assert think("a</think>b", prompt, **options) == 1.0
        assert think("<think>a</think>b", prompt, **options) == think("b", prompt, **options) == 0.0
    asked = [{"role": "user", "content": "Close this: <think>"}]
    assert think("a</think>b", asked) == 0.0, "what the user says opens nothing"
    assert think("a</think>b", "Q<think>x") == 0.0


def test_the_tags_are_an_option() -> None:
    assert think("[r]a[/r]b", tags=["[r]", "[/r]"]) == 1.0 and think("<think>a</think>b", tags=["[r]", "[/r]"]) == 0.0
    for tags in ("<think>", ["<think>"], ["a", "a"], ["", "a"]):
        with pytest.raises(UserError, match="two different texts"):
            make_think(tags=tags)


def ids(*sizes: int) -> dict[str, Any]:
    return {"prompts": [""] * len(sizes), "completions": [""] * len(sizes), "completion_ids": [[0] * n for n in sizes]}


def test_length_costs_beyond_the_target() -> None:
    assert make_length(target=10, slack=4)(**ids(0, 10, 11, 12, 14, 99)) == [0, 0, -0.25, -0.5, -1, -1]
    assert make_length(target=0, slack=1)(**ids(0, 1)) == [0, -1]
    for options in ({"target": -1, "slack": 1}, {"target": 1, "slack": 0}):
        with pytest.raises(UserError, match=r"length: (target|slack)"):
            make_length(**options)


def test_overlong_is_equation_13_of_dapo() -> None:
    """The three cases of the paper, with its own numbers (L_max 20480, L_cache 4096)."""
    punish = make_overlong(max_length=20480, cache=4096)
    assert punish(**ids(0, 16384, 16385, 18432, 20480, 20481)) == [0, 0, -1 / 4096, -0.5, -1, -1]
    for options in ({"max_length": 8, "cache": 9}, {"max_length": 8, "cache": 0}):
        with pytest.raises(UserError, match="0 < cache <= max_length"):
            make_overlong(**options)


def repetition(text: str, **options: Any) -> float | None:
    return make_repetition(**options)(completions=[text])[0]


def test_repetition_is_the_share_of_runs_said_before() -> None:
    assert repetition("a b c d e") == repetition("") == repetition("a a") == 0.0
    assert repetition("a b c a b c") == pytest.approx(-1 / 4)
    assert repetition("A b C a B c") == pytest.approx(-1 / 4), "case does not count"
    assert repetition("a a a", ngram=1) == pytest.approx(-2 / 3)
    assert repetition("a a a", ngram=1, max_penalty=3) == pytest.approx(-2)
    assert -1 < (repetition("go " * 1000) or 0) < -0.99
    for options in ({"ngram": 0}, {"ngram": 1000}, {"max_penalty": 0}, {"max_penalty": -1}):
        with pytest.raises(UserError, match="repetition: "):
            make_repetition(**options)


def test_repetition_agrees_with_counting_and_is_linear() -> None:
    rng = random.Random(0)
    for _ in range(100):
        words = rng.choices("abc", k=rng.randrange(30))
        size = rng.randrange(1, 5)
        runs = [words[i : i + size] for i in range(len(words) - size + 1)]
        again = sum(run in runs[:i] for i, run in enumerate(runs))
        expected = -again / len(runs) if runs else 0
        assert repetition(" ".join(words), ngram=size) == pytest.approx(expected)
    start = time.process_time()
    repetition("go " * 300_000, ngram=20)
    assert time.process_time() - start < 3


def draws(step: int | None = 0, *, texts: Any = None, prompts: Any = None, **options: Any) -> list[float | None]:
    state = None if step is None else SimpleNamespace(global_step=step)
    prompts = ["Q"] * 64 if prompts is None else prompts
    texts = [""] * len(prompts) if texts is None else texts
    return list(make_random(**options)(prompts=prompts, completions=texts, trainer_state=state))


def test_random_knows_nothing_of_the_answer() -> None:
    assert draws(texts=[f"answer {i}" for i in range(64)]) == draws() == draws(texts=["\ud800"] * 64)
    assert set(draws()) == {0.0, 1.0}


def test_random_draws_by_seed_step_prompt_and_place() -> None:
    others = [draws(1), draws(2), draws(seed=1), draws(prompts=["R"] * 64), draws(prompts=[[{"content": "Q"}]] * 64)]
    assert all(other != draws() for other in others) and draws(None) == draws(0)
    assert len({tuple(other) for other in others}) == len(others)
    assert draws(prompts=["R", "Q", "R", "Q"])[1::2] == draws(prompts=["Q", "Q"]), "whatever else is in the batch"


def test_random_has_the_share_that_is_asked_for() -> None:
    for p in (0, 0.1, 0.5, 1):
        values = [value for step in range(50) for value in draws(step, p=p)]
        assert sum(filter(None, values)) / len(values) == pytest.approx(p, abs=0.03)
    for options in ({"p": 1.1}, {"p": float("nan")}, {"seed": -1}):
        with pytest.raises(UserError, match="random: "):
            make_random(**options)


def keeps(text: str, *constraints: Any, **options: Any) -> float | None:
    return make_instructions(**options)(completions=[text], constraints=[list(constraints)])[0]


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        ({"kind": "min_words", "count": 3}, "a b c", "a b"),
        ({"kind": "max_words", "count": 2}, "a b", "a b c"),
        ({"kind": "contains", "text": "Cat"}, "the cat sat", "the dog sat"),
        ({"kind": "not_contains", "text": "cat"}, "the dog sat", "the CAT sat"),
        ({"kind": "starts_with", "text": "Dear"}, "  dear Sir", "Sir dear"),
        ({"kind": "ends_with", "text": "Bye."}, "well, bye.\n", "bye. Well"),
        ({"kind": "num_sentences", "count": 2}, "It is 3.5 m. Really?!", "It is. It is. It is"),
        ({"kind": "num_bullets", "count": 2}, "So:\n- a\n* b\nend", "- a\n-b\n"),
        ({"kind": "num_bullets", "count": 2}, "1. a\n2) b", "1.5 a\n2. b"),
        ({"kind": "lowercase"}, "all low 5.", "all Low"),
        ({"kind": "uppercase"}, "ALL 5!", "ALl"),
        ({"kind": "lowercase"}, "a", "5"),
        ({"kind": "json"}, '{"a": [1]}', "{'a': 1}"),
        ({"kind": "json"}, '```json\n{"a": 1}\n```', 'Here: {"a": 1}'),
        ({"kind": "json"}, "3", ""),
    ],
)
def test_each_instruction_is_kept_or_not(constraint: dict[str, Any], good: str, bad: str) -> None:
    assert keeps(good, constraint) == 1.0 and keeps(bad, constraint) == 0.0


def test_the_score_is_a_share_or_all() -> None:
    constraints = [{"kind": "lowercase"}, {"kind": "max_words", "count": 1}]
    assert keeps("a b", *constraints) == 0.5 and keeps("a b", *constraints, score="all") == 0.0
    assert keeps("a", *constraints, score="all") == 1.0
    with pytest.raises(UserError, match="share or all"):
        make_instructions(score="most")  # type: ignore[arg-type]


def test_constraints_come_as_json_or_with_empty_keys() -> None:
    reward = make_instructions()
    columns = ['[{"kind": "lowercase"}]', [{"kind": "max_words", "count": 2.0, "text": None}]]
    assert reward(completions=["a", "a b c"], constraints=columns) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([{"kind": "min_word", "count": 1}], "did you mean 'min_words'?"),
        ([{"kind": "rhyme"}], "no kind 'rhyme'; have: min_words"),
        ([{"count": 3}], "no kind None"),
        ([{"kind": "min_words"}], "give 'count'"),
        ([{"kind": "lowercase", "count": 3}], "give 'kind' alone"),
        ([{"kind": "min_words", "count": -1}], "whole number"),
        ([{"kind": "min_words", "count": True}], "whole number"),
        ([{"kind": "contains", "text": " "}], "not empty"),
        (["lowercase"], "give {kind"),
        ([], "not empty"),
        (None, "not empty"),
        ("[", "no JSON"),
    ],
)
def test_a_row_with_a_bad_constraint_is_named(bad: Any, message: str) -> None:
    with pytest.raises(RowError) as caught:
        make_instructions()(completions=["a", "a"], constraints=[[{"kind": "json"}], bad])
    assert message in str(caught.value) and "row 1" in str(caught.value) and caught.value.row == 1


HOSTILE = [
    "." * 90_000 + "x",
    "\n" * 10**6,
    " " * 10**6,
    "[" * 10**6,
    "9" * 10**6,
    "- " * 10**5,
    '"' * 10**6,
    "\ud800" * 9,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:3]))
def test_no_text_holds_up_the_instructions(text: str) -> None:
    start = time.process_time()
    for kind in KINDS:
        given = (
            {"count": 3}
            if "num" in kind or "words" in kind
            else {}
            if kind.endswith(("case", "json"))
            else {"text": "a"}
        )
        keeps(text, {"kind": kind, **given})
    assert time.process_time() - start < 2


@pytest.fixture(scope="module")
def slow_regex() -> Callable[..., Any]:
    """A pattern that takes exponential time on the wrong text."""
    return make_regex(pattern=r"(a+)+$", timeout=0.3)


def test_regex_is_found_or_not(slow_regex: Callable[..., Any]) -> None:
    assert slow_regex(completions=["b aaa", "b", "", [{"role": "assistant", "content": "a"}]]) == [1.0, 0.0, 0.0, 1.0]
    assert make_regex(pattern="(?i)ab", where="fullmatch")(completions=["AB", "ab\n", "xab"]) == [1.0, 0.0, 0.0]


def test_a_text_on_which_a_pattern_hangs_scores_nothing_and_the_next_is_read(slow_regex: Callable[..., Any]) -> None:
    logged: dict[str, float] = {}
    start = time.monotonic()
    texts = ["aaa", "a" * 60 + "b", "aaa", "\ud800 a"]
    assert slow_regex(completions=texts, log_metric=logged.__setitem__) == [1.0, 0.0, 1.0, 1.0]
    assert logged == {"regex/timed_out": 0.25} and time.monotonic() - start < 60


@pytest.mark.parametrize(
    "options", [{"pattern": "("}, {"pattern": "a", "where": "match"}, {"pattern": "a", "timeout": 0}]
)
def test_a_bad_pattern_is_refused_when_it_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="regex: "):
        make_regex(**options)
