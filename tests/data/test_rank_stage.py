"""The rank stage over rollouts written by hand: a judge that fails, files, raters who contradict each other."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from data.helpers_preference import Chain, chat_model, rows_of
from data.helpers_rank import decision, rollout_row, write_rollouts

from llmkit.artifacts.files import to_line
from llmkit.errors import DataError, RunError, UserError
from llmkit.preference.rankings import Decision
from llmkit.preference.rollouts import Item, item_of
from llmkit.stages import rank_by_judge

ROWS = [{**rollout_row(0), "id": f"p{index}"} for index in range(40)]
ITEMS = [item_of(row, "") for row in ROWS]
IDS = [item.id for item in ITEMS]
RIGHT, WRONG = ["c0", "c1", "c2", "c3", "c4"], ["c4", "c3", "c2", "c1", "c0"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    return chat_model(model_dir, tmp_path_factory.mktemp("chat") / "model")


@pytest.fixture
def chain(tmp_path: Path, model: Path) -> Chain:
    found = Chain(tmp_path, model)
    folder = tmp_path / "answers"
    (folder / "data").mkdir(parents=True)
    write_rollouts(folder / "data" / "rollouts.jsonl", ROWS)
    found.dirs["answers"] = folder
    return found


# --- a judge ----------------------------------------------------------------------------------------------------------


class Judge:
    """Puts items in their own order; those of `dead` it cannot be asked about."""

    def __init__(self, dead: list[str]) -> None:
        self.dead, self.failures, self.asked = dead, Counter[str](), list[list[str]]()

    def rank(self, items: list[Item]) -> list[Decision]:
        self.asked.append([item.id for item in items])
        left = [item for item in items if item.id not in self.dead]
        if len(left) < len(items):
            self.failures["no reply within 60 s"] += 2 * (len(items) - len(left))
        return [decision(item, RIGHT, "judge", by="judge") for item in left]


@pytest.fixture
def judged(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts one and the same stage: what the judge was asked, None where it was not opened, and what came of it."""
    monkeypatch.setattr(rank_by_judge, "CHUNK", 16)
    monkeypatch.setattr(rank_by_judge, "SLICE", 16)

    def start(dead: list[str] = [], **judge: Any) -> tuple[list[str] | None, Any]:  # noqa: B006 - only read
        opened: list[Judge] = []
        monkeypatch.setattr(rank_by_judge, "_opened", lambda *_: opened.append(Judge(dead)) or opened[0])
        chain.dirs.pop("judged", None)
        try:
            found: Any = chain.run("rank", "judged", rollouts="answers", by="judge", judge={"by": "self", **judge})[1]
        except UserError as error:
            found = str(error)
        return ([id for ids in opened[0].asked for id in ids] if opened else None), found

    return start


def test_what_a_judge_failed_on_is_asked_again_and_nothing_else(judged: Any) -> None:
    asked, error = judged(IDS[20:])
    assert "12 of 16 prompts have no readable order; most often: no reply within 60 s" in error
    assert asked == IDS[:32], "an outage is noticed before the last chunk"
    asked, error = judged(IDS[38:], max_undecided=0.04)
    assert asked == IDS[20:]
    assert "2 of 40 prompts have no readable order" in error
    # more may be left out now: the orders that are there count, and what has none is asked once more
    asked, manifest = judged(IDS[38:], max_undecided=0.06)
    assert asked == IDS[38:]
    assert (manifest.metrics["undecided"], manifest.metrics["decisions"]) == (2, 38)
    asked, manifest = judged()
    assert (asked, manifest.metrics["undecided"]) == (IDS[38:], 0)


def test_a_judge_is_opened_only_for_what_is_left(judged: Any, chain: Chain) -> None:
    assert judged()[0] == IDS
    rows = (chain.dirs["judged"] / "data" / "train.jsonl").read_text()
    (chain.dirs["judged"] / "data" / "steps" / f"{rank_by_judge.JUDGED}-00001.jsonl").unlink()
    assert judged()[0] == IDS[16:32]
    assert judged()[0] is None
    assert (chain.dirs["judged"] / "data" / "train.jsonl").read_text() == rows


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"max_undecided": 0.5}, False),
        ({"timeout": 5.0}, False),
        ({"max_new_tokens": 99}, True),
    ],
)
def test_settings_that_change_no_order_keep_what_was_judged(judged: Any, changed: dict[str, Any], again: bool) -> None:
    judged()
    assert judged(**changed)[0] == (IDS if again else None)


# --- files and people -------------------------------------------------------------------------------------------------


def ranked(chain: Chain, path: Path, decisions: list[Decision], **fields: Any) -> Any:
    path.write_bytes(b"".join(to_line(each.model_dump(mode="json")) for each in decisions))
    chain.dirs.pop("filed", None)
    return chain.run("rank", "filed", rollouts="answers", by="file", path=str(path), **fields)


def test_rankings_of_a_file(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    worker, manifest = ranked(chain, path, [decision(item, WRONG) for item in ITEMS])
    assert manifest.metrics["decisions"] == manifest.metrics["prompts"] == 40
    assert manifest.metrics["seconds_per_prompt"] == 3.0
    assert {str(row["rankings"]) for row in rows_of(worker.dir.data / "train.jsonl")} == {"[[5, 4, 3, 2, 1]]"}


def test_as_many_as_are_wanted_are_enough(chain: Chain, tmp_path: Path) -> None:
    """In floats 0.56 of 25 is more than 14."""
    write_rollouts(chain.dirs["answers"] / "data" / "rollouts.jsonl", ROWS[:25])
    path, decisions = tmp_path / "rankings.jsonl", [decision(item, WRONG) for item in ITEMS[:14]]
    assert ranked(chain, path, decisions, min_ranked=0.56)[1].metrics["decisions"] == 14
    with pytest.raises(UserError, match="13 of 25 prompts are ranked, and 56% are wanted"):
        ranked(chain, path, decisions[1:], min_ranked=0.56)


def test_a_file_that_is_of_other_prompts_too_names_them(chain: Chain, tmp_path: Path) -> None:
    path, others = tmp_path / "rankings.jsonl", [item_of({**ROWS[0], "id": f"old{n}"}, "") for n in range(4)]
    decisions = [decision(item, RIGHT) for item in [*ITEMS[:30], *others]]
    said = r"30 of 40 prompts are ranked, and 100% are wanted; 4 rankings .* \(prompts old0, old1, old2 and 1 more\)"
    with pytest.raises(UserError, match=said):
        ranked(chain, path, decisions)
    _, manifest = ranked(chain, path, decisions, min_ranked=0.5)
    assert any("prompts old0, old1, old2 and 1 more" in warning for warning in manifest.warnings)


def test_a_file_with_one_id_twice_or_other_answers_stops_the_stage(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    same = [decision(ITEMS[0], RIGHT, "anna", id="x"), decision(ITEMS[0], WRONG, "ben", id="x")]
    with pytest.raises(RunError, match=r"rankings\.jsonl:2: the id 'x' is that of another decision, in line 1"):
        ranked(chain, path, same)
    few = decision(ITEMS[0], RIGHT).model_copy(update={"shown": ("c0", "c1"), "groups": (("c0",), ("c1",))})
    with pytest.raises(DataError, match=r"rankings\.jsonl:2: decision \S+ on item 'p0' ranks c0, c1, and the item has"):
        ranked(chain, path, [decision(ITEMS[1], RIGHT), few])


def test_raters_who_contradict_the_others_are_said_in_the_log(chain: Chain, tmp_path: Path) -> None:
    raters = {"anna": RIGHT, "ben": RIGHT, "carl": WRONG}
    made = [decision(item, groups, rater) for item in ITEMS for rater, groups in raters.items()]
    _, manifest = ranked(chain, tmp_path / "r.jsonl", made)
    (warning,) = (each for each in manifest.warnings if "contradict" in each)
    assert "'carl' (tau -1.00 over 80 rankings)" in warning
    assert "anna" not in warning
    assert manifest.metrics["ceiling_between_raters"] == 0.5
    assert manifest.metrics["tau_between_raters"] == pytest.approx(-1 / 3)


def test_a_functions_rankings_say_how_long_they_took(chain: Chain) -> None:
    worker, manifest = chain.run(
        "rank", "function", rollouts="answers", by="labeller", labeller="data.test_rank_stage:slow"
    )
    decisions = rows_of(worker.dir.data / "rankings.jsonl")
    assert all(row["seconds"] >= 0.001 and "shown_again" not in row for row in decisions)
    assert manifest.metrics["right_pairs"] == 1.0


def slow(completions: list[Any], **_: Any) -> list[float]:
    time.sleep(0.05)
    return [float(len(str(each))) for each in completions]
