"""Scores by reasoning-gym; a stand-in for it where it is not installed."""

from __future__ import annotations

import json
import random
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest

from llmkit.data.problems import Problem
from llmkit.data.reasoning_gym import made_up
from llmkit.errors import UserError
from llmkit.recipe.practice import ProblemSource, RewardSpec
from llmkit.rewards.check import check
from llmkit.rewards.reasoning_gym import make_reasoning_gym, samples
from llmkit.rewards.registry import load
from llmkit.rewards.rows import RowError


class Dataset:
    """Sums whose scorer gives a little for an answer that holds the right one, and fails on a question mark."""

    made = 0

    def __init__(self, size: int, seed: int) -> None:
        random.seed(seed)  # as some tasks do
        Dataset.made += 1
        self.size, self.seed = size, seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.size:
            raise IndexError("no such puzzle")
        return {"question": "?", "answer": str(100 + self.seed + index), "metadata": {"key": (1, 2)}}

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        assert isinstance(entry["metadata"]["key"], tuple)
        if "?" in answer:
            raise TypeError("cannot read it")
        return 1.0 if answer == entry["answer"] else 0.2 if entry["answer"] in answer else 0.0


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_dataset(name: str, **config: Any) -> Dataset:
        if name != "sums":
            raise ValueError(f"Dataset {name} not registered")
        return Dataset(**config)

    module = ModuleType("reasoning_gym")
    module.create_dataset = create_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reasoning_gym", module)
    monkeypatch.setattr("llmkit.rewards.reasoning_gym.find_spec", lambda name: object())
    Dataset.made = 0


CONFIG = json.dumps({"size": 10, "seed": 7})


def score(
    *texts: str, task: Any = "sums", config: Any = CONFIG, index: Any = 3, logs: Any = None, **options: Any
) -> Any:
    columns = {"rg_task": [task], "rg_config": [config], "rg_index": [index]}
    columns = {name: values * len(texts) for name, values in columns.items()}
    return make_reasoning_gym(**options)(completions=list(texts), log_metric=logs, **columns)


@pytest.mark.usefixtures("fake")
def test_only_a_full_score_of_the_final_answer_counts() -> None:
    texts = ("The answer is 110.", "<answer>109, 110, 111</answer>", "#### 111", "110", "is it 110?", "")
    assert score(*texts) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert score(*texts, parse="lenient") == [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    assert score(*texts, partial=True) == [1.0, 0.2, 0.0, 0.0, 0.0, 0.0]
    assert score(*texts, whole_text=True) == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert score("<answer>110</answer>", marks=["boxed"]) == [0.0]


@pytest.mark.usefixtures("fake")
def test_a_scorer_that_fails_scores_nothing_and_is_counted() -> None:
    logged: dict[str, float] = {}
    assert score("<answer>?</answer>", "#### 110", "<answer>x110</answer>", "", logs=logged.__setitem__) == [0, 1, 0, 0]
    shares = {"reasoning_gym/strict": 0.25, "reasoning_gym/lenient": 0.25}
    assert logged == {**shares, "reasoning_gym/score": pytest.approx(0.3), "reasoning_gym/errors": 0.25}


@pytest.mark.usefixtures("fake")
def test_the_random_numbers_of_a_training_stay_as_they_are() -> None:
    state = random.getstate()
    score("#### 110")
    samples({"rg_task": "sums", "rg_config": CONFIG, "rg_index": 3})
    assert random.getstate() == state


@pytest.mark.usefixtures("fake")
def test_each_data_set_is_made_once() -> None:
    reward = make_reasoning_gym()
    configs = [CONFIG, CONFIG, json.dumps({"size": 10, "seed": 8})]
    for _ in range(3):
        found = reward(completions=["#### 110"] * 3, rg_task=["sums"] * 3, rg_config=configs, rg_index=[3, 4, 2])
        assert found == [1.0, 0.0, 1.0]
    assert Dataset.made == 2


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"task": "summs"}, "does not make task 'summs' (ValueError"),
        ({"task": None}, "rg_task is None"),
        ({"config": "{"}, "no JSON"),
        ({"config": {"seed": 1}}, "options as JSON text"),
        ({"config": '{"size": 5}'}, "no 'seed'"),
        ({"config": '{"seed": null}'}, "no 'seed'"),
        ({"config": '{"seed": 1, "sise": 5}'}, "TypeError"),
        ({"index": 10}, "no puzzle 10"),
        ({"index": "a"}, "no puzzle 'a'"),
        ({"index": None}, "no puzzle None"),
    ],
)
def test_a_row_that_names_no_puzzle_is_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError) as caught:
        score("#### 110", **columns)
    assert message in str(caught.value) and "row 0" in str(caught.value)


@pytest.mark.usefixtures("fake")
def test_it_is_checked_by_its_own_answers() -> None:
    row = {"rg_task": "sums", "rg_config": CONFIG, "rg_index": 3}
    assert (samples(row).gold, samples(row).wrong) == ("The answer is 110.", "The answer is 111.")
    for args in ({}, {"partial": True}):
        reward = load([RewardSpec(name="reasoning_gym", args=args)])

        class Row:
            prompt, columns, place = "Q", row, "a:1"

        assert check(reward, [Row()]).is_good and reward[0].partial is bool(args)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("accepts", "wrong"),
    [
        (lambda answer, right: abs(int(answer) - int(right)) < 5, "The answer is 221."),
        (lambda answer, right: answer in (right, "111", "221"), "The answer is 011."),
        (lambda answer, right: True, None),
    ],
)
def test_an_answer_that_its_scorer_accepts_is_no_wrong_one(
    accepts: Any, wrong: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dataset, "score_answer", lambda self, answer, entry: float(accepts(answer, entry["answer"])))
    found = samples({"rg_task": "sums", "rg_config": CONFIG, "rg_index": 3})
    assert (found.gold, found.wrong) == ("The answer is 110.", wrong)


def test_without_reasoning_gym_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.rewards.reasoning_gym.find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed; pip install"):
        make_reasoning_gym()


@pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed")
def test_the_real_one() -> None:
    import reasoning_gym

    config = {"size": 5, "seed": 1}
    entry = reasoning_gym.create_dataset("chain_sum", **config)[2]
    assert score(f"#### {entry['answer']}", "#### x", task="chain_sum", config=json.dumps(config), index=2) == [
        1.0,
        0.0,
    ]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed")
def test_every_task_passes_the_check_of_its_gold_answers() -> None:
    from reasoning_gym.factory import DATASETS

    reward = load([RewardSpec(name="reasoning_gym")])
    for task in sorted(set(DATASETS) - {"composite"}):
        rows = made_up(ProblemSource(path=f"reasoning_gym:{task}", num_rows=4))
        problems = [Problem(raw.value["prompt"], raw.value, f"{task}:{raw.line}", "k") for raw in rows]
        assert not check(reward, problems).failures, task
