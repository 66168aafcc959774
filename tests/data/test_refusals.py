"""Refusal data: which questions become which rows, re-probes, controls, counts."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_probe import (
    MODEL,
    known,
    name,
    people,
    refusals_stage,
    refusing,
    row,
    sample,
    unknown,
    write_probe,
)

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.stagefile import StageFile
from llmkit.data.files import read_file
from llmkit.data.formats import convert, recognise
from llmkit.errors import DataError, RunError
from llmkit.knowledge.judge import Item, RulesJudge
from llmkit.knowledge.partial import HONEST_END
from llmkit.knowledge.records import ProbeRow
from llmkit.knowledge.refusing import is_refusal, shipped_texts
from llmkit.recipe.knowledge import LANGUAGES
from llmkit.recipe.parts import ModelSpec, RunSpec
from llmkit.stages.common import Worker
from llmkit.stages.refusals import run

OWN = ["I do not know.", "I am not sure.", "I have no idea."]


def made(tmp_path: Path, *probes: Sequence[ProbeRow], texts: Sequence[str] = OWN, **options: Any) -> Made:
    """Runs the stage on probes called probe, probe1, ..."""
    names = ["probe", *(f"probe{index}" for index in range(1, len(probes)))]
    folders = {key: str(write_probe(tmp_path / key, rows)) for key, rows in zip(names, probes, strict=True)}
    stage = refusals_stage(**{"probes": names, "refusals": {"texts": list(texts)}, **options})
    parent = tmp_path / "sft"
    write_manifest(parent, Manifest(stage="sft", kind="sft", fingerprint=MODEL, chat_template_sha256="abc"))
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    file = StageFile(
        run=RunSpec(name="r"), model=ModelSpec(), stage=stage, stage_dir=str(out), fingerprint="f", parent=str(parent),
        input_model=None, data_stages=folders,
    )  # fmt: skip
    out.mkdir()
    return Made(run(Worker(file)), out)


class Made:
    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self.manifest, self.metrics, self.folder = manifest, manifest.metrics, folder

    def rows(self, file: str = "train") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "data" / f"{file}.jsonl").read_text().splitlines()]

    @cached_property
    def answers(self) -> dict[str, str]:
        return {r["messages"][0]["content"]: r["messages"][1]["content"] for r in self.rows()}

    @cached_property
    def refused(self) -> set[str]:
        return {question for question, answer in self.answers.items() if is_refusal(answer)}

    def fates(self) -> dict[str, int]:
        prefix = "questions_"
        return {k.removeprefix(prefix): int(v) for k, v in self.metrics.items() if k.startswith(prefix) and v}


def two_sides(num: int = 40) -> list[ProbeRow]:
    rows = people(known, num) + people(unknown, num, first=num)
    random.Random(0).shuffle(rows)
    return rows


def test_known_is_answered_in_own_words_and_unknown_refused(tmp_path: Path) -> None:
    rows = two_sides()
    result = made(tmp_path, rows)
    for item in rows:
        said = result.answers[item.question]
        assert said in OWN if item.label == "Unknown" else said == f"It is {item.answers[0]}."
    assert result.metrics["rows_refused"] == result.metrics["rows_answered"] == 40
    assert result.manifest.data_dir == "data"
    labels = Counter(shown.label for shown in result.manifest.samples)
    assert labels == {"refused": 5, "answered": 5}
    assert all(is_refusal(shown.completion) == (shown.label == "refused") for shown in result.manifest.samples)


def test_every_refusal_is_used_about_equally_and_not_in_a_round(tmp_path: Path) -> None:
    result = made(tmp_path, two_sides(100))
    dealt = [r["messages"][1]["content"] for r in result.rows() if r["messages"][1]["content"] in OWN]
    used = Counter(dealt)
    assert len(used) == 3 and max(used.values()) - min(used.values()) <= 1
    assert len({tuple(dealt[index : index + 3]) for index in range(0, 99, 3)}) > 3
    assert result.metrics["refusal_texts"] == 3


def test_what_a_label_becomes_is_the_recipes_choice(tmp_path: Path) -> None:
    right, wrong = sample("Rome", "correct"), sample("Oslo", "wrong")
    maybe = row("Where was Mo May born?", "Rome", [right, wrong], entity="Mo May")
    weakly = row("Where was Wu Wo born?", "Rome", [wrong, sample("Rome!", "correct", 0.7)], entity="Wu Wo")
    rows = [*two_sides(), maybe, weakly]
    assert (maybe.label, weakly.label) == ("MaybeKnown", "WeaklyKnown")
    result = made(tmp_path, rows)
    assert maybe.question not in result.answers and weakly.question not in result.answers
    assert result.fates() == {"answered": 40, "refused": 40, "maybe_known": 1, "weakly_known": 1}
    answered = made(tmp_path, rows, maybe_known="answer", weakly_known="answer", known_ratio=42 / 40)
    assert answered.answers[maybe.question] == "Rome" and answered.answers[weakly.question] == "Rome!"
    refused = made(tmp_path, rows, maybe_known="refuse", weakly_known="refuse", known_ratio=40 / 42)
    assert {maybe.question, weakly.question} <= refused.refused


def test_llama_3s_rule_refuses_what_is_consistently_informative_and_wrong(tmp_path: Path) -> None:
    hedging = [refusing(item.question, "Rome", item.entity) for item in people(unknown, 7, first=500)]
    result = made(tmp_path, [*two_sides(), *hedging], refuse="consistently_wrong")
    assert result.fates()["not_consistently_wrong"] == 7 and result.fates()["refused"] == 40
    assert not {item.question for item in hedging} & set(result.answers)


def test_an_answer_that_was_cut_off_is_not_taught(tmp_path: Path) -> None:
    said = [sample("Rome, the town of the", "correct", finish_reason="length")]
    cut = row("Where was Cu Tu born?", ["Rome", "Roma"], said, entity="Cu Tu")
    result = made(tmp_path, [*two_sides(), cut], known_ratio=41 / 40)
    assert result.answers[cut.question] == "Rome"


@pytest.mark.parametrize("language", list(HONEST_END))
def test_partial_answers_stay_and_say_that_they_are_partial(tmp_path: Path, language: str) -> None:
    document = "Pa Li was a painter from Krakow. She was born in May."
    first = row("When was Pa Li born?", "3 May 1950", [sample("In 1950.", "wrong")], entity="Pa Li")
    second = row("Who was Po Lo?", "a baker", [sample("Pa Li was a painter from Krakow", "wrong")], document=document)
    false = row("When was Fa So born?", "3 May 1950", [sample("In June 1950.", "wrong")], entity="Fa So")
    doubtful = row("Where was Do Re born?", "Rome", [sample("Krakow", "wrong")], document=document, entity="Do Re")
    lucky = row(
        "When was Lu Ky born?", "3 May 1950", [sample("x y", "wrong"), sample("1950", "wrong", 0.7)], entity="Lu Ky"
    )
    rows = [*people(known, 45), *people(unknown, 40, first=45), first, second, false, doubtful, lucky]
    result = made(tmp_path, rows, balance=False, refusals={"texts": OWN, "language": language})
    end = HONEST_END[language].partition("{partial}")[2]
    assert result.answers[first.question] == f"In 1950{end}"
    assert result.answers[second.question] == f"Pa Li was a painter from Krakow{end}"
    assert all(result.answers[item.question] in OWN for item in (false, doubtful, lucky))
    assert result.metrics["questions_partial"] == result.metrics["rows_partial"] == 2
    without = made(tmp_path, rows, balance=False, keep_partial=False)
    assert without.answers[first.question] in OWN and without.metrics["rows_partial"] == 0


def test_ratio_and_number_of_rows(tmp_path: Path) -> None:
    rows = people(known, 90) + people(unknown, 40, first=90)
    double = made(tmp_path, rows, known_ratio=2.0)
    assert (double.metrics["rows_answered"], double.metrics["rows_refused"]) == (80, 40)
    few = made(tmp_path, rows, known_ratio=2.0, num_rows=30)
    assert (few.metrics["rows_answered"], few.metrics["rows_refused"]) == (20, 10)
    assert few.fates() == {"answered": 20, "refused": 10, "surplus": 100}
    with pytest.raises(DataError, match="'num_rows' is 121, but the probes give 120 rows; set it to 120 or less"):
        made(tmp_path, rows, known_ratio=2.0, num_rows=121)


def test_a_missing_side_stops_the_stage_with_the_counts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stage 'idk': .*\(questions: refused 30\)"):
        made(tmp_path, people(unknown, 30))


def test_refusals_only_is_a_control(tmp_path: Path) -> None:
    result = made(tmp_path, two_sides(), known_ratio=0)
    assert result.metrics["num_rows"] == result.metrics["rows_refused"] == 40 and len(result.refused) == 40
    assert result.fates() == {"refused": 40, "surplus": 40}
    assert not any("wording" in warning for warning in result.manifest.warnings)


FACTS = ["Where lives {}?", "What makes {}?", "When came {}?", "Who taught {}?", "What wrote {}?", "Is {}?"]


def lopsided(result: Made) -> list[str]:
    return [warning for warning in result.manifest.warnings if "the shorter list" in warning]


@pytest.mark.parametrize(("few", "many"), [(known, unknown), (unknown, known)])
def test_few_entities_against_many_are_told_by_name(tmp_path: Path, few: Any, many: Any) -> None:
    """As many rows on both sides, and six questions about each of the few."""
    fewer, more = few.__name__, many.__name__
    asked = [item for fact in FACTS for item in people(few, 10, question=fact)]
    (warning,) = lopsided(made(tmp_path, [*asked, *people(many, 60, first=10)], balance=False))
    assert warning.startswith(f"the {more} side is about 60 entities and the {fewer} side about 10: ")
    assert f"take everything else for {more}; probe more entities that are {fewer}, or" in warning
    enough = [item for fact in FACTS[:5] for item in people(few, 10, question=fact)]
    result = made(tmp_path, [*enough, *people(many, 50, first=10)], balance=False)
    assert not lopsided(result), "five times as many"
    assert {result.metrics["entities_answered"], result.metrics["entities_refused"]} == {10, 50}


def test_a_control_without_known_rows_is_not_called_lopsided(tmp_path: Path) -> None:
    assert not lopsided(made(tmp_path, two_sides(), known_ratio=0))


def test_random_relabelling_keeps_questions_and_counts(tmp_path: Path) -> None:
    rows = two_sides(100)
    plain, shuffled = made(tmp_path, rows), made(tmp_path, rows, relabel="random")
    assert set(plain.answers) == set(shuffled.answers)
    assert len(plain.refused) == len(shuffled.refused) == 100
    assert 25 < len(plain.refused & shuffled.refused) < 75
    accepted = {item.question: item.answers[0] for item in rows}
    taught = [q for q in shuffled.answers if q not in shuffled.refused and q in plain.refused]
    assert all(shuffled.answers[question] == accepted[question] for question in taught)
    calls = {r["messages"][0]["content"] for r in shuffled.rows("tool_calls") if r["messages"][1].get("tool_calls")}
    assert calls == shuffled.refused


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first, again, other = (made(tmp_path, two_sides(), num_rows=40, seed=seed) for seed in (1, 1, 2))
    files = ("train", "pairs", "pairs_all", "tool_calls", "questions")
    assert [first.rows(file) for file in files] == [again.rows(file) for file in files]
    assert set(first.answers) != set(other.answers)


def test_every_row_of_every_probe_has_one_reason(tmp_path: Path) -> None:
    rng = random.Random(3)
    verdicts = ("correct", "wrong", "refused", "empty", "undecided")

    def random_row(number: int) -> ProbeRow:
        samples = [sample(rng.choice(["Rome", "1950", ""]), rng.choice(verdicts), t) for t in (0.0, 0.0, 0.7, 0.7)]
        if rng.random() < 0.5:  # questions that are certain, one way or the other
            samples = [sample("Rome", rng.choice(["correct", "wrong"]))] * 2
        wording = rng.choice(["Where was {} born?", "In which town was {} born?", "What does {} do?"])
        who = name(rng.randrange(150))
        split = "heldout" if number % 9 == 0 else "train"
        return row(wording.format(who), rng.choice(["Rome", "3 May 1950"]), samples, entity=who, split=split)

    probes = [[random_row(number) for number in range(400)] for _ in range(3)]
    result = made(tmp_path, *probes, maybe_known="answer", refuse="consistently_wrong")
    metrics = result.metrics
    fates = result.fates()
    assert metrics["probe_rows"] == 1200 == metrics["questions"] + metrics["repeated"] + metrics["probed_again"]
    assert sum(fates.values()) == metrics["questions"] == len({item.id for probe in probes for item in probe})
    assert {"answered", "refused", "heldout", "undecided", "conflict", "became_known", "lost"} <= set(fates)
    assert fates["answered"] + fates["refused"] + fates.get("partial", 0) == len(
        {json.dumps(r["messages"][0]) + str(i) for i, r in enumerate(result.rows())}
    ) - (metrics["rows_answered"] - fates["answered"])
    heldout = {item.entity for probe in probes for item in probe if item.split == "heldout"}
    assert not [question for question in result.answers if any(who in question for who in heldout)]


def test_a_reprobe_takes_refusals_from_what_became_known(tmp_path: Path) -> None:
    first = two_sides(60)
    asked = {item.question: item for item in first}
    unknowns = [item for item in first if item.label == "Unknown"]
    knowns = [item for item in first if item.label == "HighlyKnown"]

    def later(item: ProbeRow, kind: Any) -> ProbeRow:
        return kind(item.question, item.answers[0], item.entity)

    def at_times(question: str, answer: str, entity: str) -> ProbeRow:
        return row(question, answer, [sample(answer, "correct"), sample("I do not know.", "refused")], entity=entity)

    second = [
        *(later(item, known) for item in unknowns[:5]),
        *(later(item, at_times) for item in unknowns[5:8]),
        *(later(item, refusing) for item in unknowns[8:]),
        *(later(item, refusing) for item in knowns[:6]),
        *(later(item, unknown) for item in knowns[6:10]),
        *(later(item, known) for item in knowns[10:]),
    ]
    result = made(tmp_path, first, second, num_rows=80)
    assert {key: result.metrics[key] for key in ("became_known", "over_refused", "lost")} == {
        "became_known": 8,
        "over_refused": 6,
        "lost": 4,
    }
    # what is highly known now may be answered; what is known at times is on neither side
    assert not {item.question for item in unknowns[:8]} & result.refused
    assert not {item.question for item in [*unknowns[5:8], *knowns[6:10]]} & set(result.answers)
    # over-refused questions are all taken, and twice: in own words and as accepted
    texts = [(r["messages"][0]["content"], r["messages"][1]["content"]) for r in result.rows()]
    for item in knowns[:6]:
        answer = asked[item.question].answers[0]
        assert {(item.question, f"It is {answer}."), (item.question, answer)} <= set(texts)
    assert result.metrics["rows_answered"] == 40 == result.metrics["questions_answered"] + 6
    assert result.metrics["probed_again"] == 120


def test_an_undecided_reprobe_changes_nothing(tmp_path: Path) -> None:
    first = two_sides(30)
    second = [row(item.question, item.answers, [sample("?", "undecided")], entity=item.entity) for item in first]
    assert made(tmp_path, first).rows() == made(tmp_path, first, second).rows()


def test_an_entity_that_any_probe_holds_out_is_held_out(tmp_path: Path) -> None:
    first = two_sides(40)
    who = first[0].entity
    result = made(tmp_path, first, [known(f"What does {who.upper()} do?", "baker", who.upper(), split="heldout")])
    assert result.fates()["heldout"] == 2 and not [question for question in result.answers if who in question]


def test_pairs_prefer_refusal_to_wrong_and_right_to_refusal(tmp_path: Path) -> None:
    rows = two_sides()
    labels = {item.question: item.label for item in rows}
    result = made(tmp_path, rows)
    assert {kind: result.metrics[f"pairs_{kind}"] for kind in ("refusal_over_wrong", "right_over_refusal")} == {
        "refusal_over_wrong": 40,
        "right_over_refusal": 40,
    }
    pairs, everything = result.rows("pairs"), result.rows("pairs_all")
    assert Counter(pair["kind"] for pair in everything) == {
        "refusal_over_wrong": 40,
        "right_over_refusal": 40,
        "unknown_right_over_refusal": 40,
        "unknown_right_over_wrong": 40,
    }
    assert pairs == [pair for pair in everything if not pair["kind"].startswith("unknown_right")]
    for pair in pairs:
        assert recognise(set(pair)) == "preference" and convert(pair, "preference", {})["prompt"] == pair["prompt"]
        question, better, worse = (pair[side][-1]["content"] for side in ("prompt", "chosen", "rejected"))
        if labels[question] == "Unknown":
            assert better == result.answers[question] and worse == "Nowhere"
        else:
            assert better == result.answers[question] and worse in OWN


def test_tool_calls_stand_in_place_of_refusals(tmp_path: Path) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    result = made(tmp_path, two_sides(), search_tool="look_up")
    for item, plain in zip(result.rows("tool_calls"), result.rows(), strict=True):
        question, turn = item["messages"]
        assert item["tools"][0]["function"]["name"] == "look_up"
        converted = convert(item, "messages", {})
        assert converted["tools"] == item["tools"]
        if is_refusal(plain["messages"][1]["content"]):
            call = {"name": "look_up", "arguments": {"query": question["content"]}}
            assert turn["tool_calls"] == [{"type": "function", "function": call}]
        else:
            assert item["messages"] == plain["messages"]
    calls = "{% for c in m.tool_calls or [] %}|{{ c.function.name }}|{{ c.function.arguments.query }}{% endfor %}"
    template = "{{ tools[0].function.name }}{% for m in messages %}" + calls + "{% endfor %}"
    calling = next(r for r in result.rows("tool_calls") if r["messages"][1].get("tool_calls"))
    texts, _ = render_jinja_template(
        conversations=[calling["messages"]], tools=calling["tools"], chat_template=template
    )
    assert texts == [f"look_up|look_up|{calling['messages'][0]['content']}"]


def test_a_question_is_refused_in_its_language(tmp_path: Path) -> None:
    rows = [*people(known, 30), *people(unknown, 10, first=30)]
    for first, language in ((40, "de"), (50, "it")):
        rows += [replace(each, language=language) for each in people(unknown, 10, first=first)]
    result = made(tmp_path, rows, refusals={"texts": {"it": ["Non lo so.", "Non ne ho idea."]}}, keep_partial=False)
    said: dict[str, set[str]] = {"": set(), "de": set(), "it": set()}
    for each in rows:
        if each.question in result.refused or each.language == "it":
            said[each.language].add(result.answers[each.question])
    assert said["it"] == {"Non lo so.", "Non ne ho idea."}
    assert said["de"] < set(shipped_texts("de", "plain")) and said[""] < set(shipped_texts("en", "plain"))
    assert result.metrics["refusal_texts"] == sum(map(len, said.values()))
    with pytest.raises(DataError, match="no texts are shipped for 'it'"):
        made(tmp_path / "b", rows, refusals={"language": "de"})


@pytest.mark.parametrize("language", LANGUAGES)
def test_shipped_texts_and_honest_ends_are_known_as_such(tmp_path: Path, language: str) -> None:
    """What the rows teach is what the measures call it: each refusal and each partial answer is judged a refusal."""
    document = "Pa Li was a painter from Krakow. She was born in May."
    dated = row("When was Pa Li born?", "3 May 1950", [sample("In 1950.", "wrong")], entity="Pa Li")
    told = row("Who was Po Lo?", "a baker", [sample("Pa Li was a painter from Krakow", "wrong")], document=document)
    rows = [*two_sides(), dated, told]
    result = made(tmp_path, rows, balance=False, known_ratio=40 / 42, refusals={"language": language})
    assert set(HONEST_END) == set(LANGUAGES)
    assert result.metrics["refusal_texts"] == min(40, len(shipped_texts(language, "plain")))
    assert result.metrics["rows_partial"] == 2 and result.metrics["rows_refused"] == 40
    verdicts = Counter()
    for asked in rows:
        item = Item(asked.question, asked.answers, result.answers[asked.question], asked.document)
        verdicts[asked.label, RulesJudge().judge([item])[0]] += 1
    assert verdicts == {("HighlyKnown", "correct"): 40, ("Unknown", "refused"): 42}


def test_partial_answers_need_an_end_in_the_language_of_the_refusals(tmp_path: Path) -> None:
    """An English end behind Dutch refusals would give partial answers away."""
    dated = row("When was Pa Li born?", "3 May 1950", [sample("In 1950.", "wrong")], entity="Pa Li")
    dutch = {"texts": ["Dat weet ik niet.", "Geen idee."], "language": "nl"}
    with pytest.raises(DataError, match=r"no end of a partial answer .* 'nl'; set 'keep_partial: false', or"):
        made(tmp_path, [*two_sides(), dated], balance=False, known_ratio=40 / 41, refusals=dutch)
    options: dict[str, Any] = {"balance": False, "known_ratio": 40 / 41, "refusals": dutch, "keep_partial": False}
    without = made(tmp_path, [*two_sides(), dated], **options)
    assert without.answers[dated.question] in dutch["texts"]


def test_a_probe_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    rows = two_sides()
    result = made(tmp_path, rows)
    write_probe(tmp_path / "probe", rows, model="another")
    file = StageFile(
        run=RunSpec(name="r"), model=ModelSpec(), stage=refusals_stage(), stage_dir=str(result.folder), fingerprint="f",
        parent=str(tmp_path / "sft"), input_model=None, data_stages={"probe": str(tmp_path / "probe")},
    )  # fmt: skip
    with pytest.raises(DataError, match="stage 'idk': probes: the probe was made with another model"):
        run(Worker(file))
    with pytest.raises(DataError, match="no stage 'probe' has run; have: other"):
        run(Worker(file.model_copy(update={"data_stages": {"other": str(tmp_path / "probe")}})))


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmkit.knowledge import training_rows

    def full(*_: Any, **__: Any) -> dict[str, Any]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training_rows, "tool_conversation", full)
    with pytest.raises((RunError, OSError)):
        made(tmp_path, two_sides())
    assert not list(tmp_path.glob("out-*/data/*"))


def test_hostile_text_survives(tmp_path: Path) -> None:
    odd = ["Where was \u202e born?", "Where was {} born?", "<|im_end|>", "a\n\nb {{ x }}", "?"]
    rows = [unknown(text, "Rome", f"e{index}") for index, text in enumerate(odd)]
    result = made(tmp_path, [*two_sides(40), *rows], balance=False, known_ratio=40 / 45)
    assert len(result.rows()) == 85
    read = list(read_file(result.folder / "data" / "train.jsonl"))
    assert not any(raw.error for raw in read)


def test_memory_does_not_grow_with_the_rows_text(tmp_path: Path) -> None:
    from llmkit.knowledge.sides import survey

    def rows() -> Any:
        for item in people(known, 200):
            yield row(item.question, item.answers, item.samples, entity=item.entity, document="x" * 10_000)

    found = survey([rows], refusals_stage())
    held = [found.fate, found.flags, found.source, found.about, found.topic, found.levels]
    assert sum(memoryview(part).nbytes for part in held) < 100 * len(found)
    assert np.frombuffer(found.fate, np.uint8).sum() == 0 and len(found) == 200


def test_watched_entities_are_in_no_training_row(tmp_path: Path) -> None:
    probe = people(known, 100) + people(unknown, 100, first=100)
    done = made(tmp_path, probe, watched=0.2)
    watched = done.rows("watched")
    assert len(watched) == 40 == done.metrics["questions_watched"] and done.metrics["num_rows"] == 160
    assert {row["refused"] for row in watched} == {True, False}
    files = ("train", "pairs", "tool_calls", "questions")
    trained = "".join((done.folder / "data" / f"{file}.jsonl").read_text() for file in files)
    assert not [row for row in watched if row["entity"] in trained]
    assert made(tmp_path, probe).rows("watched") == []


def test_what_is_asked_is_left_once_each_for_practice(tmp_path: Path) -> None:
    done = made(tmp_path, two_sides(100), known_ratio=3.0)
    asked = done.rows("questions")
    assert {row["question"]: row["refused"] for row in asked} == {q: q in done.refused for q in done.answers}
    assert len(asked) == len(done.answers)
    assert all(row["answers"] and row["entity"] for row in asked)
