"""Whose turn it is, decisions that are sent twice or too late, undo, restarts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers_rank import called_row, rollout_row
from hypothesis import given
from hypothesis import strategies as st

from llmkit.preference.rankings import LONGEST_TURN
from llmkit.preference.rollouts import Item, item_of
from llmkit.preference.session import DecisionRequest, Session, Stale, UndoRequest
from llmkit.preference.store import open_store, read_events
from llmkit.preference.turns import GAP, turns

ITEMS = [item_of(rollout_row(index), "") for index in range(6)]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with open_store(tmp_path / "rankings.jsonl") as store:
        yield Session(ITEMS, store, seed=0, repeat=0.0)


def request(state: dict[str, Any], id: str = "", **of: Any) -> DecisionRequest:
    done = state["progress"]["done"]
    groups = {} if of.keys() & {"skipped", "flagged"} else {"groups": [[0, 1], [4], [2], [3]]}
    given = {"rater": "anna", "id": id or f"{done:08x}", "turn": state["turn"]["name"], "seconds": 2.0}
    return DecisionRequest(**{**given, **groups, **of})


def item(index: int) -> Item:
    return item_of({**rollout_row(0), "id": f"p{index}"}, "")


@given(st.integers(1, 30), st.floats(0, 1), st.integers(0, 5))
def test_every_item_once_and_repeats_later_in_another_order(num: int, share: float, seed: int) -> None:
    found = turns([item(index) for index in range(num)], "anna", seed, share)
    first = {turn.item.id: place for place, turn in enumerate(found) if not turn.repeat}
    again = {turn.item.id: place for place, turn in enumerate(found) if turn.repeat}
    assert len(first) == num and len(again) == min(-(-share * num // 1), num - 1) == len(found) - num
    assert all(place > first[id] for id, place in again.items())
    shown = {(turn.item.id, turn.repeat): turn.shown for turn in found}
    assert all(shown[id, 1] != shown[id, 0] and sorted(shown[id, 1]) == sorted(shown[id, 0]) for id in again)
    if num > GAP and len(again) <= num - GAP:
        assert all(place - first[id] > GAP for id, place in again.items())


def test_one_order_of_items_and_other_orders_of_answers() -> None:
    anna, ben, later = turns(ITEMS, "anna", 0, 0), turns(ITEMS, "ben", 0, 0), turns(ITEMS, "anna", 1, 0)
    assert [turn.item.id for turn in anna] == [turn.item.id for turn in ben] != [turn.item.id for turn in later]
    assert [turn.shown for turn in anna] != [turn.shown for turn in ben]
    assert turns(ITEMS, "anna", 0, 0) == anna
    many = [turns([item(index)], "anna", 0, 0)[0].shown[0] for index in range(500)]
    assert all(60 < count < 140 for count in Counter(many).values())  # no place belongs to a model


def test_another_raters_decision_is_never_replaced(session: Session) -> None:
    session.decide(request(session.state("anna"), "0000000a"))
    with pytest.raises(Stale, match="Another rater's decision"):
        session.decide(request(session.state("ben"), "0000000a", rater="ben"))
    assert [row["done"] for row in session.results()["raters"]] == [1]


def test_new_items_do_not_move_the_others() -> None:
    before = [turn.item.id for turn in turns(ITEMS[:4], "anna", 0, 0)]
    after = [turn.item.id for turn in turns(ITEMS, "anna", 0, 0)]
    assert [id for id in after if id in before] == before


def test_a_new_item_replaces_one_repeat_at_most() -> None:
    many = [item(index) for index in range(60)]
    for num in range(12, 60):
        before, after = ({t.item.id for t in turns(many[:n], "anna", 0, 0.3) if t.repeat} for n in (num, num + 1))
        assert len(before - after) <= 1


def test_the_page_learns_no_ids(tmp_path: Path) -> None:
    row = rollout_row(0)
    answers = [{**each, "id": f"completion-{n}", "model": f"model-{n}"} for n, each in enumerate(row["completions"])]
    with open_store(tmp_path / "rankings.jsonl") as store:
        asked = item_of({**row, "id": "prompt-one", "completions": answers}, "")
        state = Session([asked], store, seed=0, repeat=0.0).state("anna")
    assert set(state["turn"]) == {"name", "prompt", "answers", "before"} and len(state["turn"]["answers"]) == 5
    assert not any(word in str(state) for word in ("prompt-one", "completion-", "model-"))


def test_the_page_gets_what_was_called_in_front_of_the_answer(tmp_path: Path) -> None:
    with open_store(tmp_path / "rankings.jsonl") as store:
        turn = Session([item_of(called_row(), "")], store, seed=0, repeat=0.0).state("anna")["turn"]
    (place,) = (place for place, steps in enumerate(turn["before"]) if steps)
    assert turn["answers"][place] == "It is 4." and turn["before"][1 - place] == []
    assert turn["before"][place] == [
        {"kind": "thought", "text": "Hm."},
        {"kind": "said", "text": "Let me see."},
        {"kind": "call", "text": 'python {"code": "print(2 + 2)"}'},
        {"kind": "result", "text": "<script>x</script>\u241b[31m4"},
    ]


def test_what_a_decision_leaves(session: Session, tmp_path: Path) -> None:
    state = session.state("anna")
    after = session.decide(request(state))
    (made,) = read_events(tmp_path / "rankings.jsonl")
    assert made.groups == ((made.shown[0], made.shown[1]), (made.shown[4],), (made.shown[2],), (made.shown[3],))
    texts = next(each.texts for each in ITEMS if each.id == made.item)
    assert [texts[id] for id in made.shown] == state["turn"]["answers"]
    assert (made.rater, made.repeat, made.by, made.seconds) == ("anna", 0, "human", 2.0) and made.time.endswith(
        "+00:00"
    )
    assert after["progress"]["done"] == 1 and after["turn"]["name"] != state["turn"]["name"]
    assert after["last"] == {"id": made.id, "outcome": "ranked"}


def test_a_decision_that_is_sent_twice_counts_once(session: Session, tmp_path: Path) -> None:
    state = session.state("anna")
    assert session.decide(request(state)) == session.decide(request(state))
    with pytest.raises(Stale, match="decided in another window"):  # a second window with the same item
        session.decide(request(state, "ffffffff", skipped=True))
    assert len(read_events(tmp_path / "rankings.jsonl")) == 1
    with pytest.raises(Stale, match="have changed since"):
        session.decide(request(state, "eeeeeeee", turn="unknown"))


def test_undo_brings_the_last_one_back_with_its_order(session: Session) -> None:
    first = session.state("anna")
    second = session.decide(request(first))
    third = session.decide(request(second, skipped=True))
    back = session.undo(UndoRequest(rater="anna", id=third["last"]["id"]))
    assert back["turn"] == second["turn"] and back["draft"] == [] and back["last"]["id"] == second["last"]["id"]
    assert session.undo(UndoRequest(rater="anna", id=third["last"]["id"]))["turn"] == second["turn"]
    again = session.undo(UndoRequest(rater="anna", id=second["last"]["id"]))
    assert again["turn"] == first["turn"] and again["draft"] == [[0, 1], [4], [2], [3]] and again["last"] is None
    with pytest.raises(Stale, match="nothing was saved twice"):  # a retry that comes too late
        session.decide(request(first, second["last"]["id"]))
    session.decide(request(first, "abcdabcd"))
    with pytest.raises(Stale, match="undo takes back the last decision only"):
        session.undo(UndoRequest(rater="anna", id="00000009"))
    with pytest.raises(Stale):
        session.undo(UndoRequest(rater="ben", id="abcdabcd"))


def test_what_was_taken_back_comes_next_also_after_a_restart_with_other_settings(tmp_path: Path) -> None:
    many = [item(index) for index in range(12)]
    with open_store(tmp_path / "rankings.jsonl") as store:
        session = Session(many, store, seed=0, repeat=0.0)
        for _ in many:
            session.decide(request(session.state("anna")))
        *_, first, last = store.events
        for settings in ({"seed": 0, "repeat": 1.0}, {"seed": 7, "repeat": 0.5}):
            session = Session(many, store, **settings)
            for taken in (last, first):
                back = session.undo(UndoRequest(rater="anna", id=session.state("anna")["last"]["id"]))
                texts = many[int(taken.item[1:])].texts
                shown = [[back["turn"]["answers"][place] for place in group] for group in back["draft"]]
                assert shown == [[texts[id] for id in group] for group in taken.groups]
                assert session.undo(UndoRequest(rater="anna", id=taken.id)) == back  # sent again
            for taken in (first, last):
                state = session.state("anna")
                session.decide(request(state, f"{settings['seed']}{len(store.events):08x}"))
                assert store.events[-1].item == taken.item
            first, last = store.events[-2:]


def test_a_second_showing_that_was_decided_stays(tmp_path: Path) -> None:
    with open_store(tmp_path / "rankings.jsonl") as store:
        session = Session(ITEMS, store, seed=0, repeat=1.0)
        for _ in range(11):
            session.decide(request(session.state("anna")))
        session = Session(ITEMS, store, seed=0, repeat=0.0)
        progress = session.progress("anna")
        assert progress["done"] == progress["total"] == 11 and session.state("anna")["turn"] is None
        back = session.undo(UndoRequest(rater="anna", id=store.events[-1].id))
        assert back["progress"]["done"] == 10 and back["progress"]["total"] == 11
        session.decide(request(back, "abcdabcd"))
        assert store.events[-1].repeat == 1


def test_a_window_that_was_left_open_for_weeks(session: Session, tmp_path: Path) -> None:
    session.decide(request(session.state("anna"), seconds=1e9))
    assert read_events(tmp_path / "rankings.jsonl")[0].seconds == LONGEST_TURN


@pytest.mark.parametrize(
    "of",
    [
        {"groups": [[0], [1], [2], [3]]},
        {"groups": [[0, 1, 2, 3, 4, 4]]},
        {"groups": [[0, 1, 2, 3, 5]]},
        {"groups": [[0, 1, 2, 3, -1]]},
        {"groups": []},
        {"skipped": True, "flagged": "both"},
        {"flagged": " "},
    ],
)
def test_what_is_no_decision_is_not_saved(session: Session, tmp_path: Path, of: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        session.decide(request(session.state("anna"), **of))
    assert read_events(tmp_path / "rankings.jsonl") == []


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    path, raters = tmp_path / "rankings.jsonl", ("anna", "ben")
    seen: dict[str, list[str]] = {rater: [] for rater in raters}
    for number in range(20):
        with open_store(path) as store:
            session = Session(ITEMS, store, seed=3, repeat=0.3)
            for rater in raters:
                state = session.state(rater)
                if state["turn"] is None:
                    continue
                seen[rater].append(state["turn"]["name"])
                session.decide(
                    request(state, f"{number:08x}-{rater[0]}", rater=rater, skipped=True)
                    if number == 1
                    else request(state, f"{number:08x}-{rater[0]}", rater=rater)
                )
    for rater in raters:
        progress = session.progress(rater)
        assert progress["done"] == progress["total"] == len(seen[rater]) == len(set(seen[rater])) in (7, 8)
        assert (progress["skipped"], progress["flagged"]) == (1, 0)
    results = session.results()
    assert [row["rater"] for row in results["raters"]] == ["anna", "ben"]
    assert results["raters"][0]["with_oneself"]["num_items"] in (1, 2)
    assert results["between"][0]["num_items"] == 5 and -1 <= results["between"][0]["tau"] <= 1


def test_rankings_of_texts_that_have_changed_do_not_count(session: Session, tmp_path: Path) -> None:
    session.decide(request(session.state("anna")))
    changed = [item_of(rollout_row(index, texts=("other", "texts")), "") for index in range(6)]
    with open_store(tmp_path / "second.jsonl") as store:
        store.append(read_events(tmp_path / "rankings.jsonl")[0])
        session = Session(changed, store, seed=0, repeat=0.0)
        assert session.state("anna")["progress"]["done"] == 0 and session.results()["num_stale"] == 1
