"""The parts of practice that need no model: measures, the order of problems, monitors, what best-of-n keeps."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import TrainerControl, TrainerState

from llmkit.chat.ask import Answer
from llmkit.data.problems import Problem
from llmkit.evaluate.passes import budgets, maj_at_k, pass_at_k
from llmkit.recipe.curves import RANGES, USEFUL, filled
from llmkit.recipe.practice import CurriculumSpec, RewardSpec
from llmkit.recipe.stages import BestOfNStage, GrpoStage
from llmkit.rewards.rows import Said
from llmkit.stages import practice
from llmkit.stages import rollouts as rollouts_file
from llmkit.stages.best_of_n import chosen
from llmkit.stages.callbacks import numbers_of_step
from llmkit.stages.measuring import curves
from llmkit.stages.monitors import HINTS, MonitorCallback, watched
from llmkit.stages.practice import Group
from llmkit.stages.prompts import ENOUGH, PromptStream
from llmkit.stages.rollouts import Rollouts
from llmkit.stages.scoring import Scorer
from llmkit.stages.solving import Attempt, numbers_of


def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_answer() -> None:
    for num_right in range(6):
        is_right = [place < num_right for place in range(5)][:5]
        for k in range(1, 6):
            draws = list(combinations(is_right, k))
            assert pass_at_k(5, sum(is_right), k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize("k", [0, 6])
def test_more_answers_than_there_are_cannot_be_drawn(k: int) -> None:
    with pytest.raises(ValueError, match="there are 5"):
        pass_at_k(5, 1, k)
    with pytest.raises(ValueError, match="there are 5"):
        maj_at_k(["1"] * 5, [True] * 5, k)


def test_the_majority_decides_and_texts_without_an_answer_do_not_vote() -> None:
    assert maj_at_k(["7", "7", "8", None, None, None], [True, True, False, False, False, False], 6) == 1.0
    assert maj_at_k(["8", "8", "7"], [False, False, True], 3) == 0.0
    assert maj_at_k([None, None], [False, False], 2) == 0.0


def test_of_several_most_frequent_answers_each_has_its_share() -> None:
    assert maj_at_k(["7", "8"], [True, False], 2) == 0.5


def test_a_smaller_majority_is_averaged_over_draws() -> None:
    votes = ["7"] * 3 + ["8"] * 2
    drawn = maj_at_k(votes, [vote == "7" for vote in votes], 3, seed=1)
    # 7 wins a draw of three unless both 8 are in it: 3 of the 10 draws
    assert drawn == pytest.approx(0.7, abs=0.12)
    assert drawn == maj_at_k(votes, [vote == "7" for vote in votes], 3, seed=1)


def test_budgets_are_powers_of_two_and_the_number_itself() -> None:
    assert budgets(0) == []
    assert budgets(8) == [1, 2, 4, 8]
    assert budgets(10) == [1, 2, 4, 8, 10]


def test_a_round_holds_every_problem_once_and_the_next_has_another_order() -> None:
    stream = PromptStream(range(20), seed=3)
    first, second = stream.next(20), stream.next(20)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert PromptStream(range(20), seed=3).next(40) == [*first, *second]
    assert PromptStream(range(20), seed=4).next(20) != first


def test_problems_without_a_level_are_always_practised() -> None:
    levels = [float("nan")] * 10 + [1.0] * 10 + [2.0] * 10
    stream = PromptStream(range(30), seed=0, levels=levels, curriculum=CurriculumSpec(unlock=0.6))
    assert {number // 10 for number in stream.next(20)} == {0, 1}
    for _ in range(ENOUGH):
        stream.score(3, 0.0)
        stream.score(13, 1.0)
    assert {number // 10 for number in stream.next(30)} == {0, 1, 2}
    assert len(PromptStream(range(10), seed=0, levels=levels, curriculum=CurriculumSpec()).next(10)) == 10


@pytest.mark.parametrize("drawn", [0, 7, 20, 33])
def test_a_stream_goes_on_from_its_state(drawn: int) -> None:
    stream = PromptStream(range(20), seed=3)
    stream.next(drawn)
    state = json.loads(json.dumps(stream.state_dict()))
    again = PromptStream(range(20), seed=3)
    again.load_state_dict(state)
    assert again.next(50) == stream.next(50)
    assert again.num_drawn == drawn + 50


def curriculum_stream() -> PromptStream:
    levels = [1.0] * 10 + [2.0] * 10 + [5.0] * 10
    return PromptStream(range(30), seed=0, levels=levels, curriculum=CurriculumSpec(unlock=0.6))


def test_a_level_opens_when_the_last_open_one_is_solved_often_enough() -> None:
    stream = curriculum_stream()
    assert all(number < 10 for number in stream.next(25))
    for _ in range(ENOUGH - 1):
        stream.score(3, 1.0)
    assert stream.num_open == 1, "too few groups to say so"
    stream.score(3, 1.0)
    assert stream.num_open == 2
    assert {number // 10 for number in stream.next(40)} == {0, 1}


def test_a_level_stays_shut_while_the_last_open_one_is_not_solved() -> None:
    stream = curriculum_stream()
    for _ in range(10 * ENOUGH):
        stream.score(3, 0.5)
    assert stream.num_open == 1
    for _ in range(10 * ENOUGH):
        stream.score(3, 0.9)
    assert stream.num_open == 2, "the running share forgets"


def test_a_curriculum_goes_on_from_its_state() -> None:
    stream = curriculum_stream()
    for _ in range(ENOUGH):
        stream.score(3, 1.0)
    stream.next(7)
    again = curriculum_stream()
    again.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    for each in (stream, again):
        for _ in range(ENOUGH):
            each.score(12, 0.8)
    assert again.num_open == stream.num_open == 3
    assert again.next(30) == stream.next(30)


class Told:
    """Stands for a worker: collects its warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def log(callback: MonitorCallback, *, step: int = 5, **numbers: float) -> None:
    state = TrainerState(global_step=step, max_steps=9)
    callback.on_log(None, state, TrainerControl(), logs={"loss": 0.1, **numbers})  # type: ignore[arg-type]


def stage(own: dict[str, Any], **fields: Any) -> GrpoStage:
    """As a worker reads it from its stage file, where nothing is left to a default."""
    data, rewards = [{"path": "x.jsonl"}], ["exact"]
    asked = GrpoStage.model_validate({"kind": "grpo", "data": data, "rewards": rewards, "monitors": own, **fields})
    resolved = asked.model_copy(update={"monitors": filled(asked.monitors)})
    return GrpoStage.model_validate_json(resolved.model_dump_json(by_alias=True))


def callback(**own: dict[str, Any]) -> tuple[MonitorCallback, Told]:
    told = Told()
    return MonitorCallback(told, stage(own), {"exact": 1.0}), told  # type: ignore[arg-type]


def test_a_curve_outside_its_range_is_warned_of_once_it_stays_there() -> None:
    watched, told = callback(entropy={"min": 0.1, "patience": 2})
    log(watched, entropy=0.05)
    log(watched, entropy=0.2)
    log(watched, entropy=0.05)
    assert told.warnings == []
    log(watched, entropy=0.04)
    assert len(told.warnings) == 1
    assert "entropy is 0.04, below 0.1" in told.warnings[0]
    assert "explore" in told.warnings[0], "the hint stays where the recipe moves a limit"
    log(watched, entropy=0.03)
    assert len(told.warnings) == 1


def test_a_monitor_stops_the_stage_where_the_recipe_says_so() -> None:
    watched, told = callback(kl={"max": 0.5, "patience": 1, "action": "stop"})
    log(watched, kl=0.4)
    assert watched.stopped_by is None
    log(watched, kl=0.6)
    assert watched.stopped_by == "kl"
    assert told.warnings[0].startswith(
        "step 5: kl is 0.6, above 0.5, which ends the stage before its 9 steps: the model"
    )


def test_after_the_last_step_there_is_nothing_to_end() -> None:
    watched, told = callback(kl={"max": 0.5, "patience": 1, "action": "stop"})
    log(watched, step=9, kl=0.6)
    assert watched.stopped_by is None
    assert told.warnings == ["step 9: kl is 0.6, above 0.5: the model has moved far from where it began: raise 'beta'"]


def test_a_moved_limit_leaves_the_other_one() -> None:
    watched, told = callback(entropy={"min": 0.1, "patience": 1})
    log(watched, entropy=6.5)
    assert "above 6" in told.warnings[0]


def test_a_monitor_goes_on_from_its_state() -> None:
    """Values that were outside before a kill count, and length drift is measured to the first steps of all."""
    (watched, _), (again, told) = callback(entropy={"min": 0.1}), callback(entropy={"min": 0.1})
    for _ in range(2):
        log(watched, entropy=0.05, **{"completions/mean_length": 20.0})
    again.load_state_dict(json.loads(json.dumps(watched.state_dict())))
    for length in (20.0, 20.0, 20.0, 90.0, 90.0, 90.0):
        log(again, entropy=0.05, **{"completions/mean_length": length})
    assert [text.split(" is ")[0] for text in told.warnings] == ["step 5: entropy", "step 5: length_drift"]


def test_a_curve_that_never_came_is_told() -> None:
    watched, told = callback(**{"exact/strict": {"min": 0.1}, "exact/lenient": {"min": 0.1}})
    log(watched, **{"exact/lenient": 0.5})
    watched.on_train_end(None, TrainerState(), TrainerControl())  # type: ignore[arg-type]
    assert told.warnings == ["monitors: no curve 'exact/strict' was ever logged, so that nothing was watched"]


def test_answers_that_grow_are_noticed() -> None:
    watched, told = callback()
    for _ in range(5):
        log(watched, **{"completions/mean_length": 20.0})
    for _ in range(3):
        log(watched, **{"completions/mean_length": 90.0})
    assert len(told.warnings) == 1
    assert "longer than at first" in told.warnings[0]


def test_a_reward_that_is_given_up_for_another_is_noticed() -> None:
    told = Told()
    watched = MonitorCallback(told, stage({}), {"exact": 1.0, "length": 0.5, "shown": 0.0})  # type: ignore[arg-type]

    def of(exact: float, length: float) -> dict[str, float]:
        means = {"exact": exact, "length": length, "shown": -exact}
        return {**{f"rewards/{label}/mean": mean for label, mean in means.items()}, "reward": exact + length / 2}

    for exact, length in ((0.5, 0.0),) * 5 + ((0.2, 0.0),) * 3 + ((0.7, 0.0),) * 3 + ((0.2, 0.9),) * 2:
        log(watched, **of(exact, length))
    assert told.warnings == [], "the sum falls, nothing falls, or not three times yet"
    log(watched, **of(0.2, 0.9))
    assert len(told.warnings) == 1 and "reward_traded is 0.3, above 0.2" in told.warnings[0]


def test_monitors_can_be_added_and_left_out() -> None:
    found = watched(stage({"entropy": {"action": "ignore"}, "rewards/exact/mean": {"min": 0.2}}))
    assert found.keys() == {*RANGES, "rewards/exact/mean"} - {"entropy"}
    assert found["rewards/exact/mean"].min == 0.2
    assert HINTS.keys() == RANGES.keys()


def test_groups_that_a_screen_judges_are_watched_only_where_the_recipe_says_so() -> None:
    sampling = {"resample": 1, "screen": 4}
    assert USEFUL not in watched(stage({}, sampling=sampling))
    assert watched(stage({USEFUL: {"action": "stop"}}, sampling=sampling))[USEFUL].min == 0.1


def made(
    text: str,
    *,
    vote: str | None = "7",
    right: bool = True,
    tokens: int = 5,
    total: float = 1.0,
    temperature: float = 1.0,
) -> Attempt:
    return Attempt(text, vote, True, right, False, tokens, total, {"exact": float(right)}, temperature)


def best(**fields: Any) -> BestOfNStage:
    data, rewards = [{"path": "x.jsonl"}], [{"name": "exact"}]
    return BestOfNStage.model_validate({"kind": "best_of_n", "data": data, "rewards": rewards, **fields})


def test_the_shortest_right_answers_are_kept_and_equal_ones_once() -> None:
    attempts = [
        made("3 + 4 = 7. The answer is 7.", tokens=9),
        made("3+4 = 7.  The answer is 7.", tokens=9),
        made("The answer is 7.", tokens=5),
        made("7", right=False, tokens=1),
    ]
    kept = chosen(attempts, best(num_kept=3), 0, "key")
    assert [one.text for one in kept] == ["The answer is 7.", "3 + 4 = 7. The answer is 7."]


def test_the_best_rewarded_or_any_right_answers_are_kept() -> None:
    attempts = [made("a 7", total=0.5), made("b 7", total=1.5), made("c 7", total=1.0)]
    kept = chosen(attempts, best(prefer="reward", num_kept=2), 0, "key")
    assert [one.text for one in kept] == ["b 7", "c 7"]
    drawn = {chosen(attempts, best(prefer="any"), seed, "key")[0].text for seed in range(30)}
    assert drawn == {"a 7", "b 7", "c 7"}


def test_numbers_of_attempts() -> None:
    greedy = made("3 + 4 = 7", temperature=0.0, tokens=12)
    found = numbers_of([[greedy, made("x"), made("y", right=False), made("z"), made("u", right=False)]])
    assert found["accuracy"] == [1.0]
    assert found["num_tokens"] == [12.0]
    assert found["pass@1"] == [0.5]
    assert found["pass@4"] == [1.0]
    assert "maj@2" not in found
    assert found["maj@4"] == [0.5], "two right ones against two that are wrong in the same way"
    spellings = [made(text, vote=text) for text in ("b", "(b)", "paris")]
    wrong = [made(text, vote="a", right=False) for text in ("A", "(A)")]
    assert numbers_of([[*spellings, *wrong]])["maj@5"] == [1.0], "right answers are one, however they are spelled"


@pytest.mark.parametrize(
    ("spec", "columns", "text", "vote", "stated"),
    [
        ({"name": "exact"}, {"answer": 5}, "The answer is 5.0 apples.", "5", True),
        ({"name": "exact"}, {"answer": 5}, "I have 5 apples and no idea.", None, False),
        ({"name": "exact", "args": {"parse": "lenient"}}, {"answer": 5}, "I have 5 apples.", "5", False),
        ({"name": "exact", "args": {"marks": ["hash"]}}, {"answer": 5}, "The answer is 5.", None, False),
        ({"name": "choice"}, {"answer": "B", "choices": ["Rome", "Paris"]}, "The answer is Paris.", "B", True),
        ({"name": "choice"}, {"answer": "B", "choices": ["Rome", "Paris"]}, "The answer is (B).", "B", True),
        ({"name": "code"}, {"tests": "assert f(1)"}, "```python\nf = abs\n```", "f = abs\n", True),
        ({"name": "code"}, {"tests": "assert f(1)"}, "f = 12", None, False),
        ({"name": "instructions"}, {"constraints": [{"kind": "lowercase"}]}, "So it is, 12.", "so it is, 12", True),
    ],
)
def test_an_answer_is_read_as_its_reward_reads_it(
    spec: dict[str, Any], columns: dict[str, Any], text: str, vote: str | None, stated: bool
) -> None:
    scorer = Scorer([RewardSpec(**spec)], "stage")
    assert scorer.said(Problem("Q", columns, "p:1", "k"), text) == Said(vote, stated)


def test_measured_curves_survive_a_line_that_a_kill_has_cut(tmp_path: Path) -> None:
    lines = [
        {"phase": "measure", "step": step, "set/accuracy": share} for step, share in ((0, 0.1), (8, 0.4), (8, 0.5))
    ]
    text = "".join(json.dumps(line) + "\n" for line in [{"phase": "train", "step": 3, "a/b": 1.0}, *lines])
    (tmp_path / "metrics.jsonl").write_text(text + '{"phase": "measure", "st', encoding="utf-8")
    (curve,) = curves(tmp_path / "metrics.jsonl")
    assert curve.name == "set/accuracy"
    assert [tuple(point) for point in curve.points] == [(0, 0.1), (8, 0.5)]


def add(kept: Rollouts, step: int) -> None:
    kept.add(
        step=step,
        problem=Problem("2 + 2?", {}, "p:1", "k"),
        answer=Answer("4", "stop", num_tokens=1, ids=(1,)),
        reward=1.0,
        advantage=0.0,
        is_right=True,
        scores={"exact": 1.0},
    )


def joined(kept: Rollouts, folder: Path) -> list[int]:
    kept.join()
    found: list[int] = pq.read_table(folder / "data" / "rollouts.parquet")["step"].to_pylist()
    return found


def test_rollouts_that_were_joined_can_be_gone_on_with(tmp_path: Path) -> None:
    """A kill between the joining and the manifest: the stage goes on from a checkpoint."""

    def rollouts(*steps: int, after: int) -> list[int]:
        kept = Rollouts(tmp_path / "data", tmp_path / "checkpoints" / "rollouts")
        kept.drop_after(after)
        for step in steps:
            add(kept, step)
            kept.flush(step + 1)
        return joined(kept, tmp_path)

    assert rollouts(0, 1, 2, after=-1) == [0, 1, 2]
    assert rollouts(2, 3, after=2) == [0, 1, 2, 3]
    assert rollouts(0, after=-1) == [0], "killed before the first checkpoint"


def test_rollouts_that_fill_the_memory_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts of one step lie beside one another; those of a step behind the checkpoint are done again."""
    monkeypatch.setattr(rollouts_file, "ENOUGH", 2)
    kept = Rollouts(tmp_path / "data", tmp_path / "parts")
    for _ in range(5):
        add(kept, 0)
    kept.flush(1)
    for _ in range(5):
        add(kept, 1)
    again = Rollouts(tmp_path / "data", tmp_path / "parts")
    again.drop_after(1)
    for _ in range(5):
        add(again, 1)
    again.flush(2)
    assert joined(again, tmp_path) == [0] * 5 + [1] * 5
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["rollouts.parquet"]


def test_a_group_to_which_no_reward_on_correctness_applies_is_useful_where_its_sums_differ() -> None:
    def group(*values: tuple[float, float]) -> Group:
        values_GF = np.array(values)
        problem = Problem(prompt="?", columns={}, place="p", key="k")
        return Group(0, problem, 0, values_GF=values_GF, totals_G=np.nansum(values_GF, 1))

    nan = float("nan")
    assert practice._is_useful(group((1.0, nan), (2.0, nan)), [1])
    assert not practice._is_useful(group((1.0, nan), (1.0, nan)), [1])
    assert not practice._is_useful(group((1.0, 0.0), (2.0, 0.0)), [1])
    assert practice._is_useful(group((1.0, 0.0), (1.0, 1.0)), [1])


def test_a_reward_for_none_of_a_steps_rows_has_no_mean_there() -> None:
    nan = float("nan")
    logged = {"loss": 0.1, "rewards/exact/mean": 0.5, "rewards/abstain/mean": nan, "rewards/abstain/std": nan}
    assert numbers_of_step(logged) == {"loss": 0.1, "rewards/exact/mean": 0.5}
    assert np.isnan(numbers_of_step({"loss": nan})["loss"]), "a broken loss is seen"
