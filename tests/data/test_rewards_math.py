"""Mathematical equality by math-verify, and what is decided without it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from llmkit.errors import UserError
from llmkit.rewards.math import decide, make_math, samples
from llmkit.rewards.rows import RowError

Math = Callable[..., list[float]]


@pytest.fixture(scope="module")
def reward() -> Math:
    if find_spec("math_verify") is None:  # importing it here would load sympy into the tests
        pytest.skip("math-verify is not installed")
    return make_math(timeout=1.0)  # type: ignore[return-value]


def score(reward: Math, given: str, answer: Any) -> float:
    return reward(completions=[f"So \\boxed{{{given}}}"], answer=[answer])[0]


EQUAL = [
    ("0.5", "\\frac{1}{2}"),
    ("\\sqrt{3}/2", "\\frac{\\sqrt{3}}{2}"),
    ("(x+1)^2", "x^2+2x+1"),
    ("2^5", "32"),
    ("\\{2, 1\\}", "\\{1,2\\}"),
    ("\\pi + \\pi", "$2\\pi$"),
    ("\\sqrt{25}", 5),
    ("\\begin{bmatrix}1&2\\end{bmatrix}", "\\begin{pmatrix}1&2\\end{pmatrix}"),
    ("(1, 2)", "(1,2)"),
    ("x=5", "5"),
    ("0.333333", "1/3"),
    ("1,000", 1000),
    ("12\\text{ feet}", "12"),
    ("\\text{Monday}", "monday"),
]
UNEQUAL = [
    ("0.51", "\\frac{1}{2}"),
    ("(x+1)^3", "x^2+2x+1"),
    ("(2,1)", "(1,2)"),
    ("[0,1]", "[0,1)"),
    ("5 or 6", "5"),
    ("5, 6", "5"),
    ("\\{5,6\\}", "5"),
    ("5 \\pm 1", "5"),
    ("5=6", "5"),
    ("11_2", "11"),
    (".5", "5"),
    (".5x", "5x"),
    ("1 2", "12"),
    ("3 4x", "34x"),
    ("1 1/2", "11/2"),
    ("0.33", "1/3"),
    ("0.333334", "1/3"),
    ("5x", "5"),
    ("Mondya", "Monday"),
    ("y", "x"),
    ("", "5"),
    ("}{", "5"),
    ("\\frac{1}{", "5"),
    ("x" * 300 + "^2", "x^2"),
]


@pytest.mark.parametrize(("given", "answer"), EQUAL)
def test_equal(reward: Math, given: str, answer: Any) -> None:
    assert score(reward, given, answer) == 1.0


@pytest.mark.parametrize(("given", "answer"), UNEQUAL)
def test_unequal(reward: Math, given: str, answer: Any) -> None:
    assert score(reward, given, answer) == 0.0


def test_numbers_and_equal_texts_need_no_helper() -> None:
    for given, wanted, verdict in [
        ("5", "5.0", True),
        ("6", "5", False),
        ("1,000", "1000", True),
        ("1/3", "2/6", True),
        ("\\pi", "$\\pi$", True),
        ("a cat", "a dog", False),
        ("2+3", "5", None),
        ("x^2+" * 99 + "0", "99x^2", False),
    ]:
        assert decide(given, wanted) is verdict, given


def test_hostile_mathematics_scores_nothing_in_time_and_harms_nothing(reward: Math) -> None:
    """A tower of powers, a sum, a product, an integral: each at most the time limit; what follows is scored."""
    score(reward, "2+3", 5)
    given = ["9^{9^{9^9}}", "\\sum_{i=1}^{10^{12}} i^i", "\\prod_{i=1}^{10^7} i", "9" * 10**6, "{" * 10**5, "2+3"]
    texts = [f"<answer>{each}</answer>" for each in given]
    logged: dict[str, float] = {}
    start = time.monotonic()
    assert reward(completions=texts, answer=[5] * 6, log_metric=logged.__setitem__) == [0, 0, 0, 0, 0, 1]
    assert logged["math/failed"] >= 2 / 6 and logged["math/found"] == 4 / 6, "two are longer than what is read"
    assert time.monotonic() - start < 100
    start = time.monotonic()
    reward(completions=texts[:1] * 50, answer=[5] * 50)
    assert time.monotonic() - start < 20, "the same answer hangs once"


def test_it_leaves_signals_alone_and_works_in_any_thread(reward: Math) -> None:
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[1]
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(score(reward, "3+3", 6)))
    thread.start()
    thread.join()
    assert found == [1.0]
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[1]) == before
    assert "math_verify" not in sys.modules, "only the helper loads it"


def test_lenient_takes_a_number_and_strict_a_mark(reward: Math) -> None:
    assert reward(completions=["I get 32"], answer=["2^5"]) == [0.0]
    lenient = make_math(parse="lenient", timeout=1.0)
    assert lenient(completions=["I get 32", "I get 33"], answer=["32", "32"]) == [1.0, 0.0]


def test_a_row_without_an_answer_is_named(reward: Math) -> None:
    with pytest.raises(RowError, match="row 1: its answer is None"):
        reward(completions=["a", "b"], answer=[5, None])


def test_samples_are_right_and_wrong(reward: Math) -> None:
    rows = [{"answer": answer} for answer in ("\\frac{1}{2}", "x^2+1", 5, "(1,2)", "x", "\\sqrt{3}")]
    found = [samples(row) for row in rows]
    answers = [row["answer"] for row in rows]
    assert reward(completions=[each.gold for each in found], answer=answers) == [1.0] * 6
    assert reward(completions=[each.wrong for each in found], answer=answers) == [0.0] * 6


def test_without_math_verify_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.rewards.math.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed; pip install 'llmkit\[math\]'"):
        make_math()


def test_options_are_checked() -> None:
    for options in ({"parse": "loose"}, {"marks": ["bold"]}, {"timeout": 0}, {"timeout": float("inf")}):
        with pytest.raises(UserError, match="math: "):
            make_math(**options)  # type: ignore[arg-type]
