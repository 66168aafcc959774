"""`require_known`: rows whose facts the model does not know are dropped or become documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_data import built, chat, write_rows
from helpers_probe import known, row, sample, unknown, write_probe

from llmkit.artifacts.manifest import SourceCount
from llmkit.data.gate import Gate, gates
from llmkit.data.mixture import Mixture, mix
from llmkit.errors import DataError
from llmkit.recipe.knowledge import RequireKnown
from llmkit.recipe.stages import TrainSource

BORN = "Where was Ann Lee born?"
DIED = "Where did Bo Day die?"
PROBED = [
    known(BORN, "Rome", "Ann Lee"),
    unknown(DIED, "New Oslo", "Bo Day"),
    row("What does Cy Eck do?", "bake", [sample("bake", "correct"), sample("fish", "wrong")], entity="Cy Eck"),
    row("How old is Di Fox?", ["31", "thirty-one"], [sample("?", "undecided")], entity="Di Fox"),
]


def probe(tmp_path: Path, rows: Any = PROBED) -> dict[str, Path]:
    return {"probe": write_probe(tmp_path / "probe", rows)}


def verdict(tmp_path: Path, item: dict[str, Any], **spec: Any) -> str:
    return Gate(RequireKnown(probe="probe", **spec), probe(tmp_path)).verdict(item)


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        (BORN, "whatever", "known"),
        ("where was ANN LEE  born", "whatever", "known"),
        (DIED, "whatever", "unknown"),
        ("What does Cy Eck do?", "", "known"),
        ("How old is Di Fox?", "31", "unknown"),
        ("Tell me about Bo Day, please.", "Bo Day died in New Oslo, a town.", "unknown"),
        ("Tell me about Bo Day, please.", "Bo Day lived in New York.", "not_probed"),
        ("Tell me about Bo Days.", "He died in New Oslo.", "not_probed"),
        ("Tell me about Ann Lee and Bo Day.", "Rome and New Oslo.", "known"),
        ("Tell me about Ann Lee.", "She was in New Oslo.", "not_probed"),
        ("What is 2 + 2?", "4", "not_probed"),
        ("?", "!", "not_probed"),
    ],
)
def test_a_row_is_known_by_its_question_or_by_the_facts_it_states(
    tmp_path: Path, question: str, answer: str, expected: str
) -> None:
    assert verdict(tmp_path, chat(question, answer)) == expected
    assert verdict(tmp_path, {"prompt": question, "completion": answer}) == expected
    assert verdict(tmp_path, {"prompt": question, "chosen": answer, "rejected": "New Oslo Rome"}) == expected
    sides = {key: [{"role": "assistant", "content": answer}] for key in ("chosen", "rejected")}
    assert verdict(tmp_path, {"prompt": [{"role": "user", "content": question}], **sides}) == expected


def test_the_last_question_of_a_conversation_counts_and_documents_pass(tmp_path: Path) -> None:
    first, second = chat(DIED, "New Oslo")["messages"], chat(BORN, "Rome")["messages"]
    assert verdict(tmp_path, {"messages": first + second}) == "known"
    assert verdict(tmp_path, {"messages": second + first}) == "unknown"
    assert verdict(tmp_path, {"messages": [{"role": "assistant", "content": DIED}]}) == "not_probed"
    assert verdict(tmp_path, {"text": DIED}) == "not_probed"


HELD = "Who is Ed Gow?"
HOLDING = [
    *PROBED,
    known(HELD, "a baker", "Ed Gow", split="heldout"),
    unknown(BORN, "Bonn", "Ann Ott", split="heldout"),
]
BAKER = chat("Tell me about Ed Gow.", "A baker.")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (chat(HELD, "whatever"), "heldout"),
        ({"prompt": "who is ed gow", "completion": "x"}, "heldout"),
        (chat("Tell me about Ed Gow.", "He is a baker."), "heldout"),
        (chat("Tell me about Ed Gow.", "He lives in Rome."), "not_probed"),
        ({"messages": [*chat(HELD, "a baker")["messages"], *chat("Thanks!", "Welcome.")["messages"]]}, "heldout"),
        ({"messages": [*chat(DIED, "New Oslo")["messages"], *BAKER["messages"]]}, "heldout"),
        (chat("Tell me about Ann Lee and Ed Gow.", "Rome; a baker."), "heldout"),
        (chat(BORN, "whatever"), "heldout"),
        (chat("What does Cy Eck do?", ""), "known"),
        (chat(DIED, "New Oslo"), "unknown"),
        ({"text": f"{HELD} a baker"}, "not_probed"),
    ],
)  # fmt: skip
def test_what_is_held_out_for_evaluation_is_told_in_any_turn(tmp_path: Path, item: Any, expected: str) -> None:
    gate = Gate(RequireKnown(probe="probe"), probe(tmp_path, HOLDING))
    assert gate.verdict(item) == expected


def test_held_out_rows_are_dropped_and_counted_apart_and_become_no_documents(tmp_path: Path) -> None:
    rows = [chat(HELD, "a baker"), chat(DIED, "New Oslo"), chat("Hello", "Hi"), chat("Ed Gow?", "A baker")]
    path, gated = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "pretrain.jsonl"
    source = TrainSource(path=str(path), require_known=RequireKnown(probe="probe", unknown="pretrain"))
    folders = probe(tmp_path, HOLDING)
    mixture = mix([source], seed=0, folder=tmp_path, data_stages=folders, gated_file=gated)
    assert [placed.row["messages"][0]["content"] for placed in mixture] == ["Hello"]
    (pool,), (count,) = mixture.pools, mixture.counts
    assert (pool.num_unknown, pool.num_heldout, count.num_gated, count.num_heldout, count.num_not_probed) == (
        1,
        2,
        1,
        2,
        1,
    )
    assert [json.loads(line)["text"] for line in gated.read_text().splitlines()] == [f"{DIED}\nNew Oslo"]
    more = source.model_copy(update={"num_rows": 2})
    words = r"\(and 3 that 'require_known' keeps out, 2 of them about what the probe holds out\)"
    with pytest.raises(DataError, match=words):
        mix([more], seed=0, folder=tmp_path, data_stages=folders)
    path = write_rows(tmp_path / "held.jsonl", [chat(HELD, "a baker")])
    with pytest.raises(DataError, match="keeps out all of its 1 rows, 1 of them about what the probe holds out"):
        mix([source.model_copy(update={"path": str(path)})], seed=0, folder=tmp_path, data_stages=folders)


def test_labels_decide_what_is_known(tmp_path: Path) -> None:
    maybe = chat("What does Cy Eck do?", "bake")
    assert verdict(tmp_path, maybe, labels=["HighlyKnown"]) == "unknown"
    assert verdict(tmp_path, chat(DIED, "x"), labels=["Unknown"]) == "known"


def test_one_known_item_is_enough_where_two_have_the_same_question(tmp_path: Path) -> None:
    rows = [unknown(BORN, "Oslo", "Ann Lee"), known(BORN, "Rome", "Ann Lee"), unknown(BORN, "Bonn", "Ann Lee")]
    gate = Gate(RequireKnown(probe="probe"), probe(tmp_path, rows))
    assert gate.verdict(chat(BORN, "x")) == "known"
    assert gate.verdict(chat("And Ann Lee?", "Bonn")) == "unknown"


def mixed(tmp_path: Path, *items: Any, rows: Any = None, **options: Any) -> Mixture:
    path = write_rows(tmp_path / "rows.jsonl", rows or list(items))
    source = TrainSource(path=str(path), **{"require_known": "probe", **options.pop("source", {})})
    return mix([source], seed=0, folder=tmp_path, data_stages=probe(tmp_path), **options)


def test_unknown_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    mixture = mixed(tmp_path, chat(BORN, "Rome"), chat(DIED, "New Oslo"), chat("Hello", "Hi"), chat("Hello", "Hi"))
    kept = {placed.row["messages"][0]["content"] for placed in mixture}
    assert kept == {BORN, "Hello"}
    (count,) = mixture.counts
    assert count == SourceCount(
        source=count.source,
        num_read=4,
        num_duplicates=1,
        num_gated=1,
        num_not_probed=1,
        num_used=2,
        sha256=count.sha256,
    )


def test_without_require_known_nothing_changes(tmp_path: Path) -> None:
    items = [chat(BORN, "Rome"), chat(DIED, "New Oslo")]
    mixture = mixed(tmp_path, *items, source={"require_known": None}, gated_file=tmp_path / "gated.jsonl")
    assert len(mixture) == 2 and mixture.counts[0].num_gated == 0
    assert not (tmp_path / "gated.jsonl").exists()


def test_unknown_rows_become_documents(tmp_path: Path) -> None:
    gated = tmp_path / "data" / "pretrain.jsonl"
    spec = {"require_known": {"probe": "probe", "unknown": "pretrain"}}
    mixture = mixed(tmp_path, chat(BORN, "Rome"), chat(DIED, "In New Oslo. "), source=spec, gated_file=gated)
    assert len(mixture) == 1
    assert [json.loads(line) for line in gated.read_text().splitlines()] == [{"text": f"{DIED}\nIn New Oslo."}]
    assert list(gated.parent.iterdir()) == [gated]
    # a stage that nothing was kept out of leaves an empty file, not an old one
    mixed(tmp_path, chat(BORN, "Rome"), source=spec, gated_file=gated)
    assert gated.read_text() == ""
    mixed(tmp_path, chat(BORN, "Rome"), chat(DIED, "x"), gated_file=tmp_path / "dropped.jsonl")
    assert not (tmp_path / "dropped.jsonl").exists()


def test_a_failed_build_leaves_no_half_file(tmp_path: Path) -> None:
    spec = {"require_known": {"probe": "probe", "unknown": "pretrain"}}
    gated = tmp_path / "data" / "pretrain.jsonl"
    with pytest.raises(DataError, match="'require_known' keeps out all of its 1 rows"):
        mixed(tmp_path, chat(DIED, "New Oslo"), source=spec, gated_file=gated)
    assert not list(gated.parent.iterdir())


def test_slices_stay_disjoint_when_rows_are_kept_out(tmp_path: Path) -> None:
    rows = [chat(DIED, f"New Oslo {i}") if i % 3 == 0 else chat(f"Hello {i}", "Hi") for i in range(40)]
    path = str(write_rows(tmp_path / "rows.jsonl", rows))
    train = TrainSource(path=path, split="train[:50%]", require_known=RequireKnown(probe="probe"))
    heldout = TrainSource(path=path, split="train[50%:]")
    folders = probe(tmp_path)
    one, two = (mix([source], seed=0, folder=tmp_path, data_stages=folders) for source in (train, heldout))
    assert one.counts[0].num_gated == 7 and len(one) == 13 and len(two) == 20
    assert not {str(placed.row) for placed in one} & {str(placed.row) for placed in two}


def test_num_rows_counts_what_passes(tmp_path: Path) -> None:
    rows = [chat(DIED, f"New Oslo {i}") if i % 2 else chat(f"Hello {i}", "Hi") for i in range(20)]
    assert len(mixed(tmp_path, rows=rows, source={"num_rows": 10})) == 10
    with pytest.raises(DataError, match=r"'num_rows' is 11, .* 10 good rows \(and 10 that 'require_known' keeps out\)"):
        mixed(tmp_path, rows=rows, source={"num_rows": 11})


def test_the_counts_reach_the_manifest_of_a_build(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [chat(BORN, "Rome"), chat(DIED, "New Oslo"), chat("Hello", "Hi")])
    source = TrainSource(path=str(path), require_known=RequireKnown(probe="probe", unknown="pretrain"))
    gated = tmp_path / "pretrain.jsonl"
    result = built(source, chat=True, data_stages=probe(tmp_path), gated_file=gated)
    (count,) = result.summary.sources
    assert (count.num_gated, count.num_not_probed, count.num_used) == (1, 1, 2) and result.summary.num_rows == 2
    assert len(gated.read_text().splitlines()) == 1


def test_a_missing_or_damaged_probe_is_named(tmp_path: Path) -> None:
    folders = probe(tmp_path)
    spec = RequireKnown(probe="probe")
    with pytest.raises(DataError, match="require_known: probe: no such stage has run; have: other"):
        Gate(spec, {"other": tmp_path})
    with pytest.raises(DataError, match="holds no finished probe"):
        Gate(spec, {"probe": tmp_path})
    file = folders["probe"] / "data" / "probe.jsonl"
    file.write_text(file.read_text() + '{"question": 1}\n')
    with pytest.raises(DataError, match=r"probe\.jsonl:5: is no row of a probe"):
        Gate(spec, folders)


def test_gates_lists_the_probes_that_sources_name() -> None:
    sources = [TrainSource(path="a.jsonl"), TrainSource(path="b.jsonl", require_known=RequireKnown(probe="p"))]
    assert [gate.probe for gate in gates(sources)] == ["p"]
