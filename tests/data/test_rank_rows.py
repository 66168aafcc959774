"""Rollouts that can be ranked and those that cannot, agreement of rankings, preference rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from helpers_rank import ANSWERS, decision, rollout_row, write_rollouts
from scipy.stats import kendalltau

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.rundir import RunDir
from llmkit.data.formats import CONVERTERS
from llmkit.errors import DataError, UserError
from llmkit.preference.agreement import (
    Contradiction,
    agreement,
    agreement_ceiling,
    between,
    ceiling,
    ceilings,
    contradicting,
    tau_b,
    with_oneself,
)
from llmkit.preference.pairs import pairs_of
from llmkit.preference.rankings import Decision, Undo, clean_name, standing
from llmkit.preference.rollouts import Item, find_rollouts, item_of, read_rollouts

ITEM = item_of(rollout_row(0), "here")
CHAT = item_of(rollout_row(1), "here")
ITEMS = {item.id: item for item in (ITEM, CHAT)}


def test_a_run_stands_for_the_stage_that_waits_for_rankings(tmp_path: Path) -> None:
    first, second = tmp_path / "rankings" / "a", tmp_path / "rankings" / "b"
    first.mkdir(parents=True)
    path = write_rollouts(first / "rollouts.jsonl", [rollout_row(0)])
    assert find_rollouts(tmp_path) == path
    second.mkdir()
    write_rollouts(second / "rollouts.jsonl", [rollout_row(0)])
    with pytest.raises(DataError, match="2 stages wait for rankings"):
        find_rollouts(tmp_path)


def test_a_stage_that_has_its_rankings_is_not_waited_for(tmp_path: Path) -> None:
    """The instruction of jokes.yaml, whose run stops twice."""
    paths = []
    for place, name in enumerate(("a", "b"), start=1):
        (tmp_path / "rankings" / name).mkdir(parents=True)
        paths.append(write_rollouts(tmp_path / "rankings" / name / "rollouts.jsonl", [rollout_row(0)]))
        assert find_rollouts(tmp_path) == paths[-1]
        stage = RunDir(tmp_path).stage(place, name).path
        stage.mkdir()
        (stage / "error.json").write_text("{}")  # it stopped and asked for people
        assert find_rollouts(tmp_path) == paths[-1]
        write_manifest(stage, Manifest(stage=name, kind="rank", fingerprint="f"))
        assert name == "b" or find_rollouts(tmp_path) == paths[-1], "it may be ranked further"
    with pytest.raises(DataError, match="2 stages have their rankings; give one of"):
        find_rollouts(tmp_path)


def test_rollouts_are_read(tmp_path: Path) -> None:
    path = write_rollouts(tmp_path / "rollouts.jsonl", [rollout_row(0), rollout_row(1)])
    items = read_rollouts(find_rollouts(tmp_path))
    assert find_rollouts(path) == path and [item.id for item in items] == ["p0", "p1"]
    assert items[1].prompt[1]["role"] == "user" and tuple(items[0].texts.values()) == ANSWERS


def test_a_version_is_of_prompt_and_texts_alone() -> None:
    row = rollout_row(0)
    assert item_of({**row, "source": "other"}, "").version == ITEM.version
    assert item_of({**row, "prompt": "Another."}, "").version != ITEM.version
    assert item_of(rollout_row(0, texts=("a", "b \ud800")), "").version != ITEM.version


def changed(**of: Any) -> dict[str, Any]:
    return {key: value for key, value in {**rollout_row(0), **of}.items() if value is not None}


def completions(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"id": id, "text": text} for id, text in pairs]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed(id=None), "rollouts.jsonl:1: has no id"),
        (changed(id=7), "rollouts.jsonl:1: id: is int, not text"),
        (changed(id="a\ud800"), "id: holds half a character"),
        (changed(prompt=" "), "1: prompt: is empty"),
        (changed(prompt=[]), "prompt is neither text nor a list of messages"),
        (changed(prompt=[{"role": "user"}]), "prompt[0]: is no message with text"),
        (changed(prompt=[{"role": "", "content": "x"}]), "prompt[0]: role: is empty"),
        (changed(completions=None), "has no completions"),
        (changed(completions=[]), "1: has no completions"),
        (changed(completions=["text"]), "completions[0]: is no object with id and text"),
        (changed(completions=[{"text": "a"}]), "completions[0]: is no object with id and text"),
        (changed(completions=completions(("a", None), ("b", "x"))), "text is NoneType, not text"),
        (changed(completions=completions(("a", "x"), ("a", "y"))), "several completions have the id 'a'"),
        (changed(completions=completions(("a", "x"))), "fewer than two distinct completions"),
        (changed(completions=completions(("a", "x"), ("b", " x\n"))), "fewer than two distinct completions"),
        ([1], "is list, not a row"),
    ],
)
def test_rows_that_cannot_be_ranked_are_named(tmp_path: Path, row: Any, message: str) -> None:
    path = write_rollouts(tmp_path / "rollouts.jsonl", [row])
    with pytest.raises(DataError) as error:
        read_rollouts(path)
    assert message in str(error.value) and "; " in str(error.value)


def test_files_without_rollouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; give a rollouts"):
        find_rollouts(tmp_path)
    path = write_rollouts(tmp_path / "rollouts.jsonl", [rollout_row(0), rollout_row(1), rollout_row(0)])
    with pytest.raises(DataError, match=r"jsonl:3: the id 'p0' stands in line 1 already"):
        read_rollouts(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="holds no rows"):
        read_rollouts(path)
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(DataError, match="jsonl:1: broken JSON"):
        read_rollouts(path)


def test_an_empty_completion_can_be_ranked() -> None:
    assert item_of(rollout_row(0, texts=("", "x")), "").texts == {"c0": "", "c1": "x"}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["c0 c1", "c2 c3"], "leaves completions without a rank: c4"),
        (["c0 c1 c2 c3 c4", "c9"], "were not shown: c9"),
        (["c0 c1", "c1 c2 c3 c4"], "ranks a completion twice"),
        (["c0 c1", "", "c2 c3 c4"], "has an empty group"),
        ([], "one of ranked, skipped and flagged"),
    ],
)
def test_a_ranking_is_complete(groups: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decision(ITEM, groups)


def test_what_counts() -> None:
    first, again = decision(ITEM, ["c0 c1 c2 c3", "c4"]), decision(ITEM, ["c4", "c0 c1 c2 c3"], id="later")
    other = decision(CHAT, [], skipped=True)
    undo = Undo(id=other.id, rater="anna", time="")
    now = standing([first, other, again, undo, first.model_copy(update={"id": "old", "version": "x"})], ITEMS)
    assert list(now.decisions.values()) == [again] and now.undone == {other.id: other}
    assert [each.id for each in now.stale] == ["old"] and now.raters == ["anna"]
    assert standing([first], {}).stale == (first,) and not standing([first], ITEMS).told_stale()
    many = [decision(item_of({**rollout_row(0), "id": f"q{n}"}, ""), ["c0 c1 c2 c3 c4"]) for n in range(5)]
    assert "(prompt p0)" in standing([first], {}).told_stale()
    assert standing(many, {}).told_stale().endswith("(prompts q0, q1, q2 and 2 more)")


def test_a_ranking_of_other_completions_is_refused() -> None:
    wrong = Decision(
        **{**decision(ITEM, ["c0 c1 c2 c3 c4"]).model_dump(), "shown": ("c0", "zz"), "groups": (("c0", "zz"),)}
    )
    with pytest.raises(DataError, match="decision anna-p0-0 on item 'p0' ranks c0, zz, and the item has c0, c1"):
        standing([wrong], ITEMS)


def test_names_of_raters() -> None:
    assert clean_name("  Zoe\u0308   B ") == "Zo\u00eb B"
    for bad in ("", "  ", "x" * 41, "a\x00b", "a\u202eb"):
        with pytest.raises(UserError, match="rater: is no name"):
            clean_name(bad)


def test_tau_is_that_of_scipy() -> None:
    source = random.Random(0)
    for _ in range(300):
        size = source.randint(2, 7)
        first, second = ({f"c{n}": source.randint(1, size) for n in range(size)} for _ in range(2))
        expected = kendalltau([*first.values()], [second[id] for id in first], variant="b").statistic
        found = tau_b(first, second)
        assert found == pytest.approx(expected) if found is not None else expected != expected


def test_agreement_counts_what_it_leaves_out() -> None:
    up, down, flat = {"a": 1, "b": 2, "c": 3}, {"a": 3, "b": 2, "c": 1}, {"a": 1, "b": 1, "c": 1}
    found = agreement([(up, up)] * 6 + [(up, down), (up, flat)])
    assert found.tau == pytest.approx(5 / 7) and (found.num_items, found.num_no_order) == (8, 1)
    assert (found.num_same, found.num_pairs) == (18, 21) and -1 < found.low < found.tau < found.high <= 1
    same = agreement([(up, up)] * 5)
    assert same.tau == same.high == 1 and 0 < same.low < 0.9  # five items prove little, four nothing
    assert agreement([(up, up)] * 4).low is None
    assert agreement([]).tau is None and agreement([(flat, up)]).low is None


def test_agreement_of_raters() -> None:
    items = [item_of({**rollout_row(0), "id": f"p{n}"}, "") for n in range(4)]
    right, wrong = ["c0", "c1", "c2", "c3", "c4"], ["c4", "c3", "c2", "c1", "c0"]
    made = [decision(item, right) for item in items] + [decision(items[0], right, repeat=1)]
    made += [decision(items[1], wrong, repeat=1), decision(items[2], [], repeat=1, skipped=True)]
    made += [
        decision(items[0], right, "ben"),
        decision(items[3], wrong, "ben"),
        decision(items[1], [], "ben", flagged="x"),
    ]
    own = with_oneself(made, "anna")
    assert own.tau == 0 and own.num_items == 2 and own.low is None
    both = between(made, "anna", "ben")
    assert both == between(made, "ben", "anna") and both.num_items == 2 and (both.num_same, both.num_pairs) == (10, 20)


def test_raters_who_contradict_the_others_are_named() -> None:
    items = [item_of({**rollout_row(0), "id": f"p{n}"}, "") for n in range(6)]
    right, wrong = ["c0", "c1", "c2", "c3", "c4"], ["c4", "c3", "c2", "c1", "c0"]
    made = [decision(item, right, rater) for item in items for rater in ("anna", "ben", "dora")]
    assert contradicting(made) == []
    made += [decision(item, wrong, "carl") for item in items]
    assert contradicting(made) == [Contradiction("carl", -1.0, 18)]
    camps = [each for each in made if each.rater != "dora"] + [decision(item, wrong, "emil") for item in items]
    assert [one.rater for one in contradicting(camps)] == ["anna", "ben", "carl", "emil"]
    assert not contradicting([*made[:12], *made[-4:]]), "four items prove nothing"


def test_what_raters_have_in_common_is_a_ceiling_too() -> None:
    items = [item_of({**rollout_row(0, texts=("a", "b")), "id": f"p{n}"}, "") for n in range(16)]
    made = [decision(each, ["c0", "c1"]) for each in items]
    made += [decision(each, ["c0", "c1"] if n % 16 < 10 else ["c1", "c0"], "ben") for n, each in enumerate(items)]
    assert set(found := ceilings(made)) == {"between_raters"} and ceilings(made[:16]) == {}
    assert found["between_raters"].share == agreement_ceiling(10 / 16) and found["between_raters"].num_items == 16
    again = [decision(each, ["c0", "c1"], repeat=1) for each in items]
    assert ceilings([*made, *again])["with_oneself"].share == 1


def test_the_ceiling_is_that_of_a_perfect_model_of_a_rater_who_errs() -> None:
    source, texts = random.Random(0), {f"c{n}": n for n in range(2)}
    items = [item_of({**rollout_row(0, texts=("a", "b")), "id": f"p{n}"}, "") for n in range(4000)]
    looks = [
        decision(each, sorted(texts) if source.random() < 0.75 else sorted(texts, reverse=True), repeat=repeat)
        for each in items
        for repeat in (0, 1)
    ]
    truth = sum(each.groups[0] == ("c0",) for each in looks) / len(looks)  # c0 is better for this rater
    found = ceiling(looks, "anna")
    assert found.low < truth < found.high and abs(found.share - truth) < 0.02 and found.num_items == 4000
    own = with_oneself(looks, "anna")
    assert own.num_same / own.num_pairs < truth - 0.1  # self-agreement alone is no ceiling
    assert (agreement_ceiling(1), agreement_ceiling(0.625), agreement_ceiling(0.3)) == (1, 0.75, 0.5)
    assert ceiling(looks[:8], "anna") is None and ceiling(looks, "ben") is None


def test_pairs_of_a_ranking() -> None:
    found = pairs_of([decision(ITEM, ["c2", "c0 c1", "c4", "c3"])], ITEMS)
    got = {(row["chosen_id"], row["rejected_id"], row["rank_gap"]) for row in found.rows}
    assert got == {
        *(("c2", "c0", 1), ("c2", "c1", 1), ("c2", "c4", 2), ("c2", "c3", 3)),
        *(("c0", "c4", 1), ("c0", "c3", 2), ("c1", "c4", 1), ("c1", "c3", 2), ("c4", "c3", 1)),
    }
    assert found.num_tied == 1 and found.raters == {"anna"} and found.items == {"p0"}
    first = found.rows[0]
    assert (first["prompt"], first["chosen"], first["rejected"]) == (ITEM.prompt, ANSWERS[2], ANSWERS[3])
    assert (first["rater"], first["item"]) == ("anna", "p0")


def test_pairs_of_conversations_can_be_trained_on() -> None:
    found = pairs_of([decision(CHAT, ["c0", "c1", "c2 c3 c4"]), decision(ITEM, ["c0", "c1", "c2 c3 c4"])], ITEMS)
    assert found.rows[0]["chosen"] == [{"role": "assistant", "content": ANSWERS[0]}]
    for row in found.rows:
        read = CONVERTERS["preference"](row)
        assert (read["chosen"], read["rejected"]) == (row["chosen"], row["rejected"])


def test_what_makes_no_pair() -> None:
    same = item_of({**rollout_row(0, texts=("a", "a \n", "b")), "id": "same"}, "")
    items: dict[str, Item] = {**ITEMS, "same": same}
    made = [
        decision(ITEM, ["c0 c1 c2 c3 c4"]),
        decision(ITEM, ["c0", "c1 c2 c3 c4"], repeat=1),
        decision(CHAT, ["c0", "c1 c2 c3 c4"]),
        decision(CHAT, [], "ben", flagged="a real person's address"),
        decision(ITEM, [], "ben", skipped=True),
        decision(same, ["c0", "c1", "c2"]),
    ]
    found = pairs_of(made, items)
    assert [(row["item"], row["chosen_id"]) for row in found.rows] == [("same", "c0"), ("same", "c1")]
    counts = (found.num_tied, found.num_repeats, found.num_flagged, found.num_skipped, found.num_same_text)
    assert counts == (10, 1, 2, 1, 1)
