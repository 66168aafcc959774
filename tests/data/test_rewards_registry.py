"""Rewards by name or path, made ready; and the door to them: what goes in, what comes out, which errors name what."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from llmkit.errors import DataError, UserError
from llmkit.recipe import reward_keys
from llmkit.recipe.practice import RewardSpec
from llmkit.rewards.guard import check_scored, score
from llmkit.rewards.registry import Named, load

OWN = """
import threading
def good(completions, answer, bonus=0, **kwargs):
    return [float(c == a) + bonus for c, a in zip(completions, answer)]
def seen(**kwargs):
    CALLS.append(kwargs)
    return [0.0] * len(kwargs["completions"])
CALLS = []
async def later(completions, **kwargs):
    return [1.0] * len(completions)
def strict(completions, answer): return []
class Instance:
    def __call__(self, completions, **kwargs): return [2.0] * len(completions)
instance = Instance()
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_rewards.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import own_rewards\n1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)
    return "own_rewards"


def only(**spec: Any) -> Named:
    return load([RewardSpec(**spec)])[0]


def made(function: Callable[..., Any], **changes: Any) -> Named:
    """A reward of the user's with this function."""
    options: dict[str, Any] = {"when": {}, "columns": (), "correctness": False, "timeout": 300.0, **changes}
    return Named("mine", 1.0, call=function, **options)


def ask(reward: Named, *rows: dict[str, Any], texts: Any = None, **options: Any) -> list[float | None]:
    texts = [f"text {i}" for i in range(len(rows))] if texts is None else texts
    return score(
        reward,
        prompts=["Q"] * len(rows),
        completions=texts,
        completion_ids=[[1]] * len(rows),
        columns=list(rows),
        places=[f"data.jsonl:{i + 1}" for i in range(len(rows))],
        **options,
    )


# Names and options, without importing ---------------------------------------------------------------------------------


def test_what_is_read_without_importing_is_what_is_there() -> None:
    required = {"t": 0.5, "target": 5, "slack": 5, "max_length": 5, "cache": 2, "pattern": "a"}
    for name in reward_keys.names():
        module = __import__(f"llmkit.rewards.{name}", fromlist=["x"])
        parameters = dict(inspect.signature(getattr(module, f"make_{name}")).parameters)
        judged = {key for key in parameters if key in reward_keys.GIVEN}
        assert list(reward_keys.options(name)) == [key for key in parameters if key not in judged], name
        described = next(each for each in reward_keys.describe() if each.name == name)
        assert (described.columns, described.correctness) == (module.COLUMNS, module.CORRECTNESS)
        assert described.summary and "\n" not in described.summary
        for key, option in described.options.items():
            default = parameters[key].default
            assert option.required == (default is inspect.Parameter.empty) and option.values
            assert option.required or option.default == default
            value = required[key] if option.required else option.default
            assert not list(reward_keys.check(RewardSpec(name=name, args={**_required(name, required), key: value})))
    assert len(reward_keys.names()) == 14


def _required(name: str, values: dict[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key, option in reward_keys.options(name).items() if option.required}


def test_the_control_plane_imports_no_reward() -> None:
    script = (
        "import sys; from llmkit.recipe import reward_keys as keys; keys.describe()\n"
        "print([name for name in sys.modules if 'llmkit.rewards' in name or name == 'numpy'])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("spec", "key", "message"),
    [
        ({"name": "exct"}, ("name",), "did you mean 'exact'?"),
        ({"name": "zzzz"}, ("name",), "have: abstain, calls, choice"),
        ({"name": "answer"}, ("name",), "no reward 'answer'"),
        ({"name": "exact", "args": {"prase": "strict"}}, ("args", "prase"), "did you mean 'parse'?"),
        ({"name": "exact", "args": {"parse": "loose"}}, ("args", "parse"), "strict or lenient"),
        ({"name": "exact", "args": {"marks": ["boxed", "bold"]}}, ("args", "marks"), "a list, each answer_is or hash"),
        ({"name": "length", "args": {"target": 5}}, ("args",), "needs 'slack'"),
        ({"name": "length", "args": {"target": 5.5, "slack": 1}}, ("args", "target"), "a whole number"),
        ({"name": "length", "args": {"target": True, "slack": 1}}, ("args", "target"), "a whole number"),
        ({"name": "think", "args": {"opened": 1}}, ("args", "opened"), "true or false"),
        ({"name": "regex", "args": {"pattern": 5}}, ("args", "pattern"), "a text"),
        ({"name": "abstain", "args": {"t": 0.5, "is_refusal": 1}}, ("args", "is_refusal"), "unknown option"),
        ({"name": "regex", "args": {"pattern": "("}}, ("args", "pattern"), "is no regular expression"),
        ({"name": "regex", "args": {"pattern": "a", "timeout": 0}}, ("args", "timeout"), "give seconds above 0"),
        ({"name": "length", "args": {"target": -1, "slack": 1}}, ("args", "target"), "0 or more"),
        ({"name": "length", "args": {"target": 1, "slack": 0}}, ("args", "slack"), "1 or more"),
        ({"name": "overlong", "args": {"max_length": 8, "cache": 9}}, ("args", "cache"), "0 < cache <= max_length"),
        ({"name": "repetition", "args": {"ngram": 0}}, ("args", "ngram"), "give 1 to 100 words"),
        ({"name": "random", "args": {"p": float("nan")}}, ("args", "p"), "a probability"),
        ({"name": "exact", "args": {"marks": []}}, ("args", "marks"), "one or more"),
        ({"name": "think", "args": {"tags": ["a", "a"]}}, ("args", "tags"), "two different texts"),
        ({"name": "calls", "args": {"free": -1}}, ("args", "free"), "0 or more"),
        ({"name": "code", "args": {"memory_mb": 1}}, ("args", "memory_mb"), "at least 64 MiB"),
        ({"name": "abstain", "args": {"t": 1}}, ("args", "t"), "below 1"),
        ({"path": "a:b", "args": {"prompts": 1}}, ("args", "prompts"), "every reward function gets"),
    ],
)
def test_wrong_names_and_options_are_found_before_anything_runs(spec: Any, key: Any, message: str) -> None:
    (problem,) = reward_keys.check(RewardSpec(**spec))
    assert problem[0] == key and message in f"{problem[1]}; {problem[2]}"
    if "name" in spec:
        with pytest.raises(UserError, match=r"rewards: "):
            only(**spec)


# The registry ---------------------------------------------------------------------------------------------------------


def test_options_reach_a_shipped_reward_and_labels_are_its_own() -> None:
    specs = [
        RewardSpec(name="exact"),
        RewardSpec(name="exact", args={"parse": "lenient"}, weight=0.5, when={"kind": "word"}, correctness=False),
        RewardSpec(name="length", args={"target": 0, "slack": 2}),
    ]
    strict, lenient, length = load(specs)
    assert [each.label for each in (strict, lenient, length)] == ["exact", "exact_2", "length"]
    assert (strict.correctness, lenient.correctness, length.correctness) == (True, False, False)
    assert (lenient.weight, lenient.when, lenient.columns) == (0.5, {"kind": "word"}, ("answer",))
    row = {"answer": 5, "kind": "word"}
    logged: dict[str, float] = {}
    assert ask(strict, row, texts=["I get 5"], log_metric=logged.__setitem__) == [0.0]
    assert ask(lenient, row, texts=["I get 5"], log_metric=logged.__setitem__) == [1.0]
    assert ask(length, row) == [-0.5]
    assert logged["exact/lenient"] == 1.0 and logged["exact_2/lenient"] == 1.0 and len(logged) == 6


def test_a_reward_that_judges_words_takes_the_judge_of_the_stage() -> None:
    class Judge:
        def is_correct(self, text: str, accepted: tuple[str, ...]) -> bool:
            return text in accepted

        def is_refusal(self, text: str, own: tuple[str, ...]) -> bool:
            return text == "no idea" or text in own

    (abstain,) = load([RewardSpec(name="abstain", args={"t": 0.5, "refusals": ["Pass."]})], judge=Judge())
    rows = [{"answers": ["Paris"]}] * 4
    assert ask(abstain, *rows, texts=["Paris", "no idea", "Lyon", "Pass."]) == [1.0, 0.0, -1.0, 0.0]
    with pytest.raises(UserError, match="judges answers in words"):
        only(name="abstain", args={"t": 0.5})


def test_a_function_by_path_gets_everything_and_its_args(own: str) -> None:
    reward = only(path=f"{own}:good", args={"bonus": 2}, correctness=True)
    assert (reward.label, reward.columns, reward.correctness, reward.timeout) == ("good", ("answer",), True, 300.0)
    assert ask(reward, {"answer": "text 0"}, {"answer": "x"}) == [3.0, 2.0]
    assert ask(only(path=f"{own}:later"), {}, {}) == [1.0, 1.0], "asynchronous, as TRL allows"
    assert ask(only(path=f"{own}:instance"), {}) == [2.0]
    ask(only(path=f"{own}:seen"), {"a": 1}, {"a": None, "b": 2}, trainer_state="state")
    (call,) = sys.modules[own].CALLS
    assert call.pop("log_metric") and call.pop("log_extra")
    assert call == {
        "prompts": ["Q", "Q"],
        "completions": ["text 0", "text 1"],
        "completion_ids": [[1], [1]],
        "a": [1, None],
        "b": [None, 2],
        "trainer_state": "state",
    }


@pytest.mark.parametrize(
    ("path", "args", "message"),
    [
        ("no_such_package.mod:f", {}, "No module named 'no_such_package'"),
        ("{own}:godd", {}, "own_rewards has no function 'godd'; did you mean 'good'?"),
        ("{own}:number", {}, "'number' is no function"),
        ("own_broken:f", {}, "own_broken cannot be imported (ZeroDivisionError"),
        ("{own}:strict", {}, "takes no **kwargs: it is own_rewards:strict(completions, answer)"),
        ("{own}:good", {"bonsu": 1}, "did you mean 'bonus'?"),
        ("{own}:good", {"completions": 1}, "is what every reward function gets"),
    ],
)
def test_a_function_that_does_not_fit_is_named(own: str, path: str, args: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        only(path=path.format(own=own), args=args)
    assert message in str(caught.value)


def test_a_column_does_not_replace_an_argument(own: str) -> None:
    with pytest.raises(UserError, match="'bonus' is both in 'args' and a column"):
        ask(only(path=f"{own}:good", args={"bonus": 2}), {"answer": "a", "bonus": 7})


def test_a_spec_names_one_origin() -> None:
    for spec in ({}, {"name": "exact", "path": "a:b"}, {"path": "a.b"}, {"name": "exact", "timeout": 5}):
        with pytest.raises(ValidationError):
            RewardSpec(**spec)


# The guard ------------------------------------------------------------------------------------------------------------


def test_rows_that_do_not_match_are_never_shown() -> None:
    shown: list[Any] = []

    def mine(completions: Any, level: Any, **_: Any) -> list[float]:
        shown.append((list(completions), list(level)))
        return [float(each) for each in level]

    reward = made(mine, when={"kind": "math", "on": True}, columns=("level",))
    rows = [
        {"kind": "math", "on": True, "level": 1},
        {"kind": "code", "on": True},
        {"kind": "math", "on": 1, "level": 3},
        {"kind": "math", "on": True, "level": 4},
        {"kind": None},
        {},
    ]
    assert ask(reward, *rows) == [1.0, None, None, 4.0, None, None]
    assert shown == [(["text 0", "text 3"], [1, 4])]
    assert ask(reward, *rows[4:]) == [None, None] and len(shown) == 1, "not called with nothing"


@pytest.mark.parametrize(
    "result",
    [[1, 0.5], (1, 0.5), np.array([1, 0.5]), np.array([1, 0.5], dtype=np.float32), [np.float64(1), np.array(0.5)]],
)
def test_numbers_of_any_kind_are_taken(result: Any) -> None:
    assert ask(made(lambda **_: result), {}, {}) == [1.0, 0.5]
    assert ask(made(lambda **_: [True, None]), {}, {}) == [1.0, None]


def test_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    for result in (torch.tensor([1, 0.5]), [torch.tensor(1.0), torch.tensor(0.5)]):
        assert ask(made(lambda result=result, **_: result), {}, {}) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returns None"),
        (1.0, "returns float 1.0"),
        ("01", "returns str 01"),
        ({"a": 1, "b": 2}, "returns dict"),
        (iter([1, 2]), "return a list of 2 numbers"),
        ([1.0], "returns 1 scores for 2 completions"),
        ([1.0] * 3, "returns 3 scores for 2 completions"),
        ([1.0, float("nan")], "returns float nan for the row data.jsonl:2 and 'text 1'"),
        ([float("inf"), 1.0], "returns float inf for the row data.jsonl:1 and 'text 0'"),
        ([1.0, -float("inf")], "data.jsonl:2"),
        ([1.0, np.float32("nan")], "data.jsonl:2"),
        ([1.0, "1"], "returns str 1 for the row data.jsonl:2"),
        ([1.0, [1.0]], "returns list [1.0] for the row data.jsonl:2"),
        ([1.0, 1j], "returns complex 1j"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused(result: Any, message: str) -> None:
    for timeout in (300.0, None):
        with pytest.raises(UserError) as caught:
            ask(made(lambda **_: result, timeout=timeout), {}, {})
        assert message in str(caught.value) and "rewards: mine" in str(caught.value)


def test_the_row_on_which_a_function_fails_is_named() -> None:
    def mine(completions: Any, answer: Any, **_: Any) -> list[float]:
        return [1 / each for each in answer]

    for timeout in (300.0, None):
        with pytest.raises(UserError) as caught:
            ask(made(mine, timeout=timeout), {"answer": 1}, {"answer": 2}, {"answer": 0})
        for part in ("rewards: mine", "ZeroDivisionError: division by zero", "data.jsonl:3", "'text 2'"):
            assert part in str(caught.value)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_failure_of_a_batch_alone_says_so() -> None:
    def mine(completions: Any, **_: Any) -> list[float]:
        if len(completions) > 1:
            raise MemoryError("too many")
        return [1.0]

    with pytest.raises(UserError, match="fails with MemoryError: too many, on 3 rows together"):
        ask(made(mine), {}, {}, {})


def test_what_is_no_exception_does_not_end_the_process() -> None:
    def leaves(**_: Any) -> Any:
        raise SystemExit(3)

    with pytest.raises(UserError, match="SystemExit: 3"):
        ask(made(leaves), {})


def test_a_bad_row_of_a_shipped_reward_is_named_by_its_place() -> None:
    rows = [{"answer": 5, "use": "a"}, {"answer": 5, "use": "b"}, {"answer": [5], "use": "a"}]
    with pytest.raises(DataError, match=r"data\.jsonl:3: exact: its answer is \[5\]"):
        ask(only(name="exact", when={"use": "a"}), *rows)


def test_missing_columns_are_named_with_those_that_are_there() -> None:
    for row in ({"question": "Q", "solution": "S"}, {"question": "Q", "solution": "S", "answer": None}):
        with pytest.raises(DataError) as caught:
            ask(only(name="exact"), {"answer": 5}, row)
        for part in ("data.jsonl:2", "'exact' reads the column 'answer'", "it has question, solution"):
            assert part in str(caught.value)
    with pytest.raises(DataError, match="'trainer_state' has the name"):
        ask(only(name="random"), {"trainer_state": 5})


def test_a_function_that_hangs_is_named_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"mine: has not returned after 0\.3 seconds, on 2 rows from data\.jsonl:1 on"):
        ask(made(lambda **_: time.sleep(60), timeout=0.3), {}, {})
    assert time.monotonic() - started < 4


def test_a_time_limit_keeps_closures_and_without_one_the_thread_is_the_callers() -> None:
    threads: list[Any] = []

    def mine(completions: Any, **_: Any) -> list[float]:
        threads.append(threading.current_thread())
        return [1.0] * len(completions)

    ask(made(mine), {})
    ask(made(mine, timeout=None), {})
    assert [thread is threading.current_thread() for thread in threads] == [False, True]
    assert threads[0].daemon


def test_a_function_that_needs_signals_is_told_how() -> None:
    import signal

    def mine(completions: Any, **_: Any) -> list[float]:
        signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        return [1.0] * len(completions)

    with pytest.raises(UserError, match="signals"):
        ask(made(mine), {})
    assert ask(made(mine, timeout=None), {}) == [1.0]


def test_a_row_that_no_reward_scores_is_named() -> None:
    rewards = [only(name="exact"), only(name="random")]
    check_scored(rewards, [[None, 1.0], [0.0, None]], ["a:1", "a:2"])
    with pytest.raises(UserError, match=r"a:2: no reward applies to this row \(exact, random\)"):
        check_scored(rewards, [[None, None], [0.0, None]], ["a:1", "a:2"])


def test_every_shipped_reward_is_called_as_trl_calls_it() -> None:
    """Every column of a mixture at once, messages, and keys that no reward knows."""
    args: dict[str, dict[str, Any]] = {
        "abstain": {"t": 0.5},
        "length": {"target": 1, "slack": 1},
        "overlong": {"max_length": 4, "cache": 2},
        "regex": {"pattern": "a"},
    }
    columns = {
        "answer": "5",
        "answers": ["5"],
        "tests": "assert True is not f",
        "constraints": [{"kind": "json"}],
        "level": 3,
    }

    class Judge:
        is_correct = staticmethod(lambda text, accepted: False)
        is_refusal = staticmethod(lambda text, own: False)

    for name in reward_keys.names():
        if name in ("reasoning_gym", "choice"):  # of other columns
            continue
        (reward,) = load([RewardSpec(name=name, args=args.get(name, {}))], judge=Judge())
        completions = [[{"role": "assistant", "content": text}] for text in ("The answer is 5.", "")]
        found = score(
            reward,
            prompts=[[{"role": "user", "content": "Q"}]] * 2,
            completions=completions,
            completion_ids=[[1, 2], []],
            columns=[columns] * 2,
            places=["a:1", "a:2"],
        )
        assert len(found) == 2 and all(isinstance(value, float) for value in found), name


def test_no_reward_imports_torch() -> None:
    names = ["guard", "check", *reward_keys.names()]
    script = (
        f"import sys\nfor name in {names}: __import__('llmkit.rewards.' + name)\n"
        "print('torch' in sys.modules, 'math_verify' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False False", done.stderr


def test_options_are_literals_that_ast_can_read() -> None:
    for name in reward_keys.names():
        for option in reward_keys.options(name).values():
            ast.literal_eval(repr(option.default))
