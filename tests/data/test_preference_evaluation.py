"""The evaluation `preference` with scripted models: gaps, the choice among n, win rates by gold and by a judge."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import PartialState
from pydantic import TypeAdapter, ValidationError

from llmkit.artifacts.stagefile import StageFile
from llmkit.chat.ask import Answer, Ask
from llmkit.data.problems import Problem
from llmkit.errors import UserError
from llmkit.evaluate.results import Document, TaskResult, write_documents
from llmkit.modeling.reward_model import RewardCard
from llmkit.recipe.preference import PreferenceSpec
from llmkit.stages import judged_pairs
from llmkit.stages.common import Worker
from llmkit.stages.preferences import Answered, best_of_n, evaluate_preference, numbers_of
from llmkit.stages.preferring import ModelJudge

SPEC: TypeAdapter[PreferenceSpec] = TypeAdapter(PreferenceSpec)
PROMPTS = [
    Problem([{"role": "user", "content": f"Say something of {number}."}], {}, f"p:{number}", f"key{number}")
    for number in range(6)
]
LENGTH = "data.test_preference_evaluation:length"


def length(completions: list[Any], **_: Any) -> list[float]:
    """A labeller that likes long answers."""
    return [float(len(each[-1]["content"])) for each in completions]


def spec(**fields: Any) -> PreferenceSpec:
    given = {"task": "preference", "prompts": [{"path": "p.jsonl"}], "labeller": LENGTH, **fields}
    return SPEC.validate_python({name: value for name, value in given.items() if value is not None})


class Engine:
    """Answers prompts with `texts`; asked to put two of them in order, it does what `judges` says of both.

    Args:
        judges: (first answer, second answer) -> the reply.
    """

    def __init__(self, texts: Sequence[str], judges: Callable[[str, str], str] = lambda a, b: "A > B") -> None:
        self.texts, self.judges, self.asked = texts, judges, 0

    def answer(self, asks: Sequence[Ask], **_: Any) -> Iterator[list[Answer]]:
        for ask in asks:
            prompt = str(ask.prompt[0]["content"])  # type: ignore[index]
            shown = re.findall(r"Answer [AB]:\n\w{12}\n(.*?)\n\w{12}", prompt, re.DOTALL)
            if shown:
                self.asked += 1
                said = self.judges(shown[0], shown[1])
                yield [Answer("", "error", error="gone") if said == "gone" else Answer(said, "stop")]
            else:
                texts = [f"{text} {prompt[-2]}" for text in self.texts[: len(ask.temperatures)]]
                yield [Answer(text, "stop", logprob=-float(len(text)), num_tokens=3) for text in texts]


def worker_of(folder: Path, baselines: dict[str, str] | None = None) -> Worker:
    stage = {"kind": "evaluate", "name": "eval", "evals": []}
    fields: dict[str, Any] = {
        "run": {"name": "t"},
        "model": {},
        "stage": stage,
        "stage_dir": str(folder),
        "fingerprint": "f",
    }
    fields["input_model"] = None
    return Worker(StageFile.model_validate({**fields, "baselines": baselines or {}}))


def before(folder: Path, texts: Sequence[str]) -> dict[str, str]:
    """An earlier evaluation of the model `sft` on the same prompts."""
    documents = [
        Document(place, problem.asked, "", text, {"gold": float(len(text))})
        for place, (problem, text) in enumerate(zip(PROMPTS, texts, strict=True))
    ]
    write_documents(folder / "before" / "evals", TaskResult("preference", [], documents))
    return {"sft": str(folder / "before")}


def evaluated(folder: Path, engine: Engine, of: PreferenceSpec, baselines: dict[str, str] | None = None) -> Any:
    worker = worker_of(folder, baselines)
    result = evaluate_preference(worker, PartialState(cpu=True), of, PROMPTS, engine, "rlhf")  # type: ignore[arg-type]
    return {metric.name: metric for metric in result.metrics}, result, worker


def long_wins(first: str, second: str) -> str:
    return "A > B" if len(first) > len(second) else "B > A"


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_the_mean_over_all_choices_of_n() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 5):
        picked, gold = rng.normal(size=7).tolist(), rng.normal(size=7).tolist()
        chosen = [max(each, key=lambda place: picked[place]) for each in combinations(range(7), n)]
        assert best_of_n(picked, gold, n) == pytest.approx(np.mean([gold[place] for place in chosen]))


def answered(gold: list[float], picked: list[float], logprob: list[float]) -> Answered:
    return Answered(0, [str(place) for place in range(len(gold))], gold, picked, logprob, 3, False)


def test_the_gap_is_what_the_reward_model_knows_and_the_policy_does_not() -> None:
    one = answered([1.0, 2.0, 3.0, 3.0], [0.1, 0.2, 0.3, 0.9], [-1.0, -1.0, -2.0, -3.0])
    found = numbers_of([one], ["prompt"], spec(reward_model="rm", num_samples=4, best_of_n=[4]))
    assert found["reward_pair_accuracy"] == [1.0]
    # of the five pairs that differ in gold: one as likely, four the other way round
    assert found["writes_better"] == [pytest.approx(0.5 / 5)]
    assert found["discriminator_gap"] == [pytest.approx(0.9)]
    assert found["gold_best_of_4"] == [3.0]
    level = answered([1.0, 1.0], [0.1, 0.2], [-1.0, -2.0])
    assert "discriminator_gap" not in numbers_of([level], ["prompt"], spec(reward_model="rm", num_samples=2))


# --- the whole evaluation ---------------------------------------------------------------------------------------------


def test_win_rates_by_gold(tmp_path: Path) -> None:
    own = "ab 0"
    baselines = before(tmp_path, ["x" * (len(own) + place - 2) for place in range(6)])
    found, _, _ = evaluated(tmp_path, Engine(["ab", "abc"]), spec(baseline="sft", num_samples=2), baselines)
    assert found["gold_win_rate"].value == pytest.approx((1 + 1 + 0.5) / 6)
    assert found["gold"].value == len(own)
    other, _, worker = evaluated(tmp_path, Engine(["ab"]), spec(baseline="rlhf", num_samples=1), baselines)
    assert "gold_win_rate" not in other, "a model is not its own baseline"
    assert not worker.warnings


def test_the_model_itself_is_asked_which_of_its_answers_is_better(tmp_path: Path) -> None:
    """It writes short answers, and knows that long ones are better."""
    engine = Engine(["a", "abc", "abcd"], long_wins)
    found, _, _ = evaluated(tmp_path, engine, spec(self_pairs=2, num_samples=3))
    assert engine.asked == 6 * 2 * 2
    assert (found["judges_better"].value, found["self_judge_gap"].value) == (1.0, 1.0)
    blind = Engine(["a", "abc", "abcd"], lambda first, second: "A > B")
    found, _, _ = evaluated(tmp_path, blind, spec(self_pairs=1, num_samples=3))
    assert found["judges_better"].value == 0.5, "it likes the first place, so that both orders contradict each other"
    none = Engine(["a", "abc"], long_wins)
    assert "judges_better" not in evaluated(tmp_path, none, spec(num_samples=2))[0]
    assert none.asked == 0


@pytest.fixture
def judging(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, str], str]], None]:
    def use(judges: Callable[[str, str], str]) -> None:
        monkeypatch.setattr(judged_pairs, "own_engine", lambda *_: (Engine([], judges), True))

    return use


JUDGE = {"by": "openai", "name_or_path": "judge"}


def test_win_rates_by_a_judge_alone(tmp_path: Path, judging: Any) -> None:
    judging(long_wins)
    baselines = before(tmp_path, ["x", "xxxxxxx", "ab 2", "x", "x", "x"])
    alone = spec(judge=JUDGE, labeller=None, baseline="sft", num_samples=1)
    found, result, _ = evaluated(tmp_path, Engine(["ab"]), alone, baselines)
    # the third answer is the same, which needs no judge
    assert found["judge_win_rate"].value == pytest.approx(4.5 / 6)
    assert found["judge_undecided"].value == 0
    assert not {"gold", "gold_win_rate"} & set(found)
    assert [document.metrics["judge_win"] for document in result.documents] == [1, 0, 0.5, 1, 1, 1]
    judging(lambda first, second: "A > B")
    both = spec(judge=JUDGE, baseline="sft", num_samples=1)
    found, _, _ = evaluated(tmp_path, Engine(["ab"]), both, baselines)
    assert found["judge_win_rate"].value == 0.5, "each order contradicts the other"
    assert found["gold_win_rate"].value != 0.5


def test_what_a_judge_leaves_undecided_is_counted_and_bounded(tmp_path: Path, judging: Any) -> None:
    judging(lambda first, second: "gone" if "xx" in first + second else "A = B")
    baselines = before(tmp_path, ["x", "xx", "x", "x", "x", "x"])
    lenient = spec(judge={**JUDGE, "max_undecided": 0.2}, baseline="sft", num_samples=1)
    found, result, _ = evaluated(tmp_path, Engine(["ab"]), lenient, baselines)
    assert found["judge_undecided"].value == pytest.approx(1 / 6)
    assert found["judge_win_rate"].num_samples == 5
    assert "judge_win" not in result.documents[1].metrics
    strict = spec(judge=JUDGE, baseline="sft", num_samples=1)
    with pytest.raises(UserError, match=r"stage 'eval': preference: judge: left 1 of 6 prompts undecided: gone"):
        evaluated(tmp_path, Engine(["ab"]), strict, baselines)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"labeller": None}, "give exactly one of 'labeller' and 'gold', or a 'judge'"),
        ({"gold": "rm"}, "give exactly one of 'labeller' and 'gold'"),
        ({"judge": {"by": "self"}}, "must be the same for all models"),
        ({"labeller": None, "judge": JUDGE, "reward_model": "rm"}, "which say what is better"),
        ({"labeller": None, "judge": JUDGE, "self_pairs": 1}, "which say what is better"),
        ({"self_pairs": 1, "num_samples": 1}, "needs 'num_samples: 2'"),
    ],
)
def test_settings_that_do_not_fit(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        spec(**fields)


# --- judges -----------------------------------------------------------------------------------------------------------


def test_scores_beyond_those_of_ranked_answers_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Models:
        card = RewardCard(
            members=["0", "1"], means=[0.0, 10.0], deviations=[1.0, 2.0], low=[-1.0, 8.0], high=[2.0, 16.0],
            max_length=64, seed=0,
        )  # fmt: skip
        members = ()

        def scaled(self, raw_NM: np.ndarray) -> np.ndarray:
            return (raw_NM - np.array(self.card.means)) / np.array(self.card.deviations)

    scores_NM = np.array([[0.5, 1.0], [99.0, 99.0], [-99.0, -99.0], [99.0, 0.0]])
    monkeypatch.setattr("llmkit.stages.preferring.score_texts", lambda *_: scores_NM)
    judge = ModelJudge(Models())  # type: ignore[arg-type]
    # members are clipped one by one: to 2 and 3 above, to -1 and -1 below
    assert judge([""] * 4, [""] * 4).tolist() == [0.75, 2.5, -1.0, 1.0]
