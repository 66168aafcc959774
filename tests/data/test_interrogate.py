"""The stage `interrogate` on the embedded base: what it finds, what it keeps, what it refuses, how it goes on."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_openai import FakeOpenAI

from llmkit.artifacts.files import sha256_of
from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.stagefile import StageFile
from llmkit.chat.ask import Answer, Ask
from llmkit.errors import DataError, RecipeError, UserError
from llmkit.knowledge import judging
from llmkit.knowledge.judge import Item
from llmkit.knowledge.probe import check_identity, read_probe
from llmkit.knowledge.records import ProbeRow, Verdict
from llmkit.knowledge.split import entity_key
from llmkit.plan.make import make
from llmkit.recipe.knowledge import JudgeSpec
from llmkit.recipe.load import load
from llmkit.recipe.parts import ModelSpec, RunSpec
from llmkit.recipe.stages_knowledge import InterrogateStage
from llmkit.stages import engines, interrogate, refusals
from llmkit.stages.asked import Pace, step_keys
from llmkit.stages.common import Worker
from llmkit.stages.probed import model_identity
from llmkit.tiny.world import people

BASE = "llmkit.tiny:base"
Probe = Callable[..., tuple[Worker, Manifest]]


def person_rows(group: str, number: int) -> list[dict[str, Any]]:
    found = people(group)[:number]  # type: ignore[arg-type]
    return [
        {"question": f"Where was {p.name} born?", "answers": [p.town], "entity": p.name, "group": group} for p in found
    ]


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """20 questions about documented people and 20 about people whom nobody mentions."""
    return write_rows(tmp_path / "asked.jsonl", person_rows("known", 20) + person_rows("unseen", 20))


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    """Runs one interrogation as the launcher would. `inputs` are the parts of the fingerprint."""

    def run(name: str = "probe", data_stages: dict[str, str] | None = None, **fields: Any) -> tuple[Worker, Manifest]:
        model = fields.pop("model", BASE)
        stage = InterrogateStage.model_validate({"kind": "interrogate", "name": name, "seed": 7, **fields})
        inputs = {key: json.dumps(value) for key, value in stage.model_dump(mode="json").items()}
        file = StageFile(
            run=RunSpec(name="test"),
            model=ModelSpec(name_or_path=model),
            stage=stage,
            stage_dir=str(tmp_path / name),
            fingerprint=sha256_of(inputs),
            inputs=inputs,
            input_model=model,
            data_stages=data_stages or {},
        )
        file.dir.path.mkdir(exist_ok=True)
        worker = Worker(file)
        manifest = interrogate.run(worker)
        write_manifest(file.dir.path, manifest)
        return worker, manifest

    return run


def rows_of(worker: Worker) -> list[ProbeRow]:
    return list(read_probe(worker.dir.path)[1])


def lines(worker: Worker, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (worker.dir.data / name).read_text().splitlines()]


def test_documented_people_are_known_and_unmentioned_ones_are_not(probe: Probe, asked: Path) -> None:
    """The world's own groups are only looked at here, to measure the labels."""
    ask = {"num_samples": 5, "phrasings": ["{question}", "Say where: {question}"], "num_fewshot": 2, "num_variants": 2}
    worker, manifest = probe(questions=[{"path": str(asked)}], ask=ask)
    found, rows = manifest.probe, rows_of(worker)
    assert found is not None and found.num_questions == 40 and found.num_answers == 40 * (4 + 5)
    assert found.by_group["known"].get("HighlyKnown", 0) + found.by_group["known"].get("MaybeKnown", 0) >= 15
    # a guess hits one of 24 towns: more than 3 of 20 would be less likely than 1 %
    assert found.by_group["unseen"].get("HighlyKnown", 0) <= 3 and found.by_group["unseen"]["Unknown"] >= 10
    assert sum(found.labels.values()) == 40 and len(found.examples) == 10
    assert len({example.label for example in found.examples}) == len(found.labels), "examples of every label"
    assert all(len(row.samples) == 9 and row.num_samples == 9 for row in rows)
    assert all(row.logprob is not None and row.logprob < 0 for row in rows)
    assert {sample.variant for sample in rows[0].samples} == {0, 1, 2, 3}
    assert manifest.metrics["num_questions"] == 40 and manifest.metrics["questions_per_second"] > 0
    assert manifest.metrics["share_Unknown"] == found.labels["Unknown"] / 40
    assert manifest.data_dir == "data" and manifest.stop_token == "<|endoftext|>"


def test_what_it_writes(probe: Probe, asked: Path) -> None:
    worker, manifest = probe(questions=[{"path": str(asked)}], ask={"num_samples": 1}, heldout=0.3)
    rows, held = rows_of(worker), lines(worker, "heldout.jsonl")
    assert {path.name for path in (worker.dir.data / "steps").iterdir()} == {
        "questions.jsonl", "counts.jsonl", "answers-00000.jsonl", "verdicts-00000.jsonl", "steps.json"
    }  # fmt: skip
    assert [row["question"] for row in held] == [row.question for row in rows if row.split == "heldout"]
    columns = {"question", "answers", "entity", "group", "document", "language", "label"}
    assert 0 < len(held) < 40 and set(held[0]) == columns
    assert manifest.metrics["num_heldout"] == len(held)
    assert {row.source for row in rows} == {f"{asked}:{n}" for n in range(1, 41)}
    phases = {line["phase"] for line in map(json.loads, worker.dir.metrics.read_text().splitlines())}
    assert {"questions", "ask", "judge", "label"} <= phases
    last = [line for line in map(json.loads, worker.dir.metrics.read_text().splitlines()) if line["phase"] == "ask"][-1]
    assert (last["step"], last["total"]) == (40, 40) and last["questions_per_second"] > 0 and last["seconds_left"] == 0


class Scripted:
    """An engine that answers what its script says, and counts what it was asked."""

    def __init__(self, says: Callable[[Ask, float], str]) -> None:
        self.says, self.num_asked, self.fail_after = says, 0, 10**9
        self.asks: list[Ask] = []

    def answer(self, asks: Sequence[Ask], **_: Any) -> Iterator[list[Answer]]:
        for ask in asks:
            self.num_asked += 1
            if self.num_asked > self.fail_after:
                raise KeyboardInterrupt
            self.asks.append(ask)
            yield [Answer(self.says(ask, t), "stop", logprob=-1.0, num_tokens=2) for t in ask.temperatures]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    engine = Scripted(lambda ask, _: "Arlen" if "known" in ask.key else "I do not know.")
    monkeypatch.setattr(engines, "open_engine", lambda *_, **__: engine)
    monkeypatch.setattr(interrogate, "CHUNK", 8)
    return engine


def texts(rows: Sequence[ProbeRow]) -> list[list[str]]:
    return [[sample.text for sample in row.samples] for row in rows]


def test_the_same_seed_gives_the_same_rows_and_another_does_not(probe: Probe, asked: Path) -> None:
    fields: dict[str, Any] = {"questions": [{"path": str(asked)}], "ask": {"num_samples": 3, "temperature": 1.0}}
    (a, _), (b, _), (c, _) = probe("a", **fields), probe("b", **fields), probe("c", **fields, seed=8)
    assert rows_of(a) == rows_of(b)
    by_question = [{row.question: row for row in rows_of(worker)} for worker in (a, c)]
    assert by_question[0].keys() == by_question[1].keys()
    differ = [by_question[0][key].samples != by_question[1][key].samples for key in by_question[0]]
    assert sum(differ) >= 10, "half of the people are unknown, and samples about them vary"
    assert any(by_question[0][key].split != by_question[1][key].split for key in by_question[0])


def test_the_size_of_a_batch_does_not_change_what_is_found(probe: Probe, asked: Path) -> None:
    fields: dict[str, Any] = {"questions": [{"path": str(asked)}], "ask": {"num_samples": 2}}
    (a, _), (b, _) = probe("a", **fields), probe("b", **fields, batch_size=7)
    assert texts(rows_of(a)) == texts(rows_of(b))


def test_a_killed_stage_goes_on_at_the_first_missing_chunk(probe: Probe, asked: Path, scripted: Scripted) -> None:
    fields: dict[str, Any] = {"questions": [{"path": str(asked)}], "ask": {"num_samples": 2}}
    scripted.fail_after = 19
    with pytest.raises(KeyboardInterrupt):
        probe("a", **fields)
    assert scripted.num_asked == 20, "two chunks of 8 and some of the third"
    scripted.fail_after = 10**9
    a, manifest = probe("a", **fields)
    assert scripted.num_asked == 20 + 24 and manifest.probe is not None and manifest.probe.num_questions == 40
    whole, _ = probe("whole", **fields)
    assert rows_of(a) == rows_of(whole)
    num_asked = scripted.num_asked
    probe("a", **fields)
    assert scripted.num_asked == num_asked, "a finished stage asks nothing again"


@pytest.mark.parametrize(
    ("change", "asked_again"),
    [
        ({"thresholds": {"consistently_wrong": 0.5}}, False),
        ({"heldout": 0.5}, False),
        ({"batch_size": 3}, False),
        ({"judge": {"by": "rules", "max_undecided": 0.5}}, False),
        ({"ask": {"num_samples": 3}}, True),
        ({"seed": 8}, True),
        ({"questions": "other"}, True),
    ],
)
def test_a_step_is_done_again_only_if_what_it_depends_on_changed(
    probe: Probe, asked: Path, scripted: Scripted, tmp_path: Path, change: dict[str, Any], asked_again: bool
) -> None:
    fields: dict[str, Any] = {"questions": [{"path": str(asked)}], "ask": {"num_samples": 2}}
    probe("a", **fields)
    if change.get("questions"):
        change = {"questions": [{"path": str(write_rows(tmp_path / "other.jsonl", person_rows("new", 40)))}]}
    before = scripted.num_asked
    a, _ = probe("a", **{**fields, **change})
    assert scripted.num_asked - before == (40 if asked_again else 0)
    fresh, _ = probe("fresh", **{**fields, **change})
    assert rows_of(a) == rows_of(fresh)


def test_a_judges_own_files_are_no_part_of_the_answers() -> None:
    """Another prompt, or other weights in the judge's folder: answers that cost days are kept."""

    def keys(parts: dict[str, str], **fields: Any) -> dict[str, str]:
        judge = {"by": "model", "name_or_path": "./judge", "prompt": "own.jinja"}
        stage = {"kind": "interrogate", "name": "a", "judge": judge, "questions": [{"path": "q.jsonl"}], **fields}
        told = {"run": {"name": "t"}, "model": {"name_or_path": BASE}, "stage": stage, "stage_dir": "a"}
        inputs = {"ask": "1", "prompt own.jinja": "1", "weights ./judge": "1", **parts}
        return step_keys(StageFile.model_validate({**told, "fingerprint": "f", "input_model": BASE, "inputs": inputs}))

    before = keys({})
    for part in ("prompt own.jinja", "weights ./judge"):
        after = keys({part: "2"})
        assert {step for step in before if before[step] != after[step]} == {"verdicts"}
    # the same model writes the questions
    writer = {"by": "model", "name_or_path": "./judge"}
    fields: dict[str, Any] = {"documents": [{"path": "d.jsonl"}], "writer": writer}
    assert keys({}, **fields)["written"] != keys({"weights ./judge": "2"}, **fields)["written"]
    assert keys({}, **fields)["written"] == keys({"prompt own.jinja": "2"}, **fields)["written"]


def test_progress_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for again is counted from its own beginning."""
    monkeypatch.setattr("llmkit.stages.asked.SHOWN_EVERY", 0.0)
    shown: list[tuple[int, float]] = []

    def log(_: str, step: int, __: int, **numbers: float) -> None:
        shown.append((step, numbers.get("asked_again", 0)))

    pace = Pace(SimpleNamespace(log=log), "judge", 35, 1)  # type: ignore[arg-type]
    for further in (10, 30, 4):
        pace.show(further)
    pace.add(20)
    pace.show(15)
    assert shown == [(10, 0), (30, 0), (30, 1), (35, 1)]
    for further in (3, 9, 15, 3, 15):
        pace.show(further)
    pace.add(15)
    assert shown[4:] == [(35, 2), (35, 3)], "once for each round in which all is asked again"


class FlakyJudge:
    """Leaves `num_undecided` answers undecided, and counts what it saw."""

    def __init__(self, num_undecided: int) -> None:
        self.left, self.seen, self.num_asked = num_undecided, 0, 0
        self.failures = Counter({"timed out": num_undecided})

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        self.num_asked += len(items)
        for item in items:
            self.seen += 1
            self.left -= 1
            verdicts.append(
                "undecided" if self.left >= 0 else "correct" if item.accepted[0] in item.answer else "wrong"
            )
        return verdicts


def judged_by(monkeypatch: pytest.MonkeyPatch, judge: FlakyJudge) -> FlakyJudge:
    monkeypatch.setattr(engines, "open_judge", lambda *_, **__: judge)
    return judge


def test_a_judge_that_fails_stops_the_stage_and_is_asked_again_about_the_rest(
    probe: Probe, asked: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.says = lambda ask, t: f"{ask.key} {t}"
    fields: dict[str, Any] = {"questions": [{"path": str(asked)}], "ask": {"num_samples": 1}}
    judge = judged_by(monkeypatch, FlakyJudge(3))
    with pytest.raises(
        UserError, match=r"judge: left 3 of 80 answers undecided \(3.8%, allowed 2.0%\).*most often: timed out; .* kept"
    ):
        probe("a", **fields)
    assert judge.seen == 80 and not (asked.parent / "a" / "data" / "probe.jsonl").exists()
    judged_by(monkeypatch, FlakyJudge(3))
    with pytest.raises(UserError, match=r"left 3 of 80 answers undecided"):  # three in a row are no outage
        probe("a", **fields)
    num_asked, again = scripted.num_asked, judged_by(monkeypatch, FlakyJudge(1))
    a, manifest = probe("a", **fields)
    assert again.seen == 3 and scripted.num_asked == num_asked, "only what was undecided is judged again"
    assert manifest.probe is not None and manifest.probe.num_undecided == 1
    assert any("the judge left 1 of 80 answers undecided" in text for text in a.warnings)
    undecided = [row for row in rows_of(a) if row.num_undecided]
    assert [(row.num_samples, row.num_correct + row.num_wrong + row.num_refused) for row in undecided] == [(1, 1)]


def test_a_judge_that_is_out_of_order_is_not_asked_to_the_end(
    probe: Probe, asked: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.says = lambda ask, t: f"{ask.key} {t}"
    judge = judged_by(monkeypatch, FlakyJudge(10**9))
    with pytest.raises(UserError, match="left 64 of 64 answers undecided"):
        probe("a", questions=[{"path": str(asked)}], ask={"num_samples": 1})
    assert judge.seen == 64 < 80
    judge = judged_by(monkeypatch, FlakyJudge(10**9))
    _, manifest = probe("b", questions=[{"path": str(asked)}], judge={"max_undecided": 1.0}, ask={"num_samples": 1})
    assert manifest.probe is not None and manifest.probe.labels == {"Undecided": 40}


ENDPOINT = {"by": "openai", "name_or_path": "judge", "base_url": "http://localhost:1/v1", "max_retries": 0}


def test_a_dead_endpoint_is_noticed_within_a_slice_of_a_chunk(
    probe: Probe, asked: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 questions, each with 9 answers, in one chunk: it was noticed after 360 calls."""
    monkeypatch.setattr(interrogate, "CHUNK", 512)
    scripted.says = _all_different()
    judge = judged_by(monkeypatch, FlakyJudge(10**9))
    with pytest.raises(UserError, match="judge: left 64 of 64 answers undecided"):
        probe("a", questions=[{"path": str(asked)}], judge=ENDPOINT)
    assert judge.seen == 64
    # it dies after a while: what it decided before is kept, to within a few seconds
    dying = judged_by(monkeypatch, FlakyJudge(0))
    judge_all = dying.judge

    def judge_until(items: Sequence[Item]) -> list[Verdict]:
        if dying.seen >= 200:
            dying.left = 10**9
        return judge_all(items)

    monkeypatch.setattr(dying, "judge", judge_until)
    with pytest.raises(UserError, match="left 64 of 64 answers undecided"):
        probe("a", questions=[{"path": str(asked)}], judge=ENDPOINT)
    assert dying.seen == 256 + 64
    mended = judged_by(monkeypatch, FlakyJudge(0))
    probe("a", questions=[{"path": str(asked)}], judge=ENDPOINT)
    assert mended.seen == 360 - 256


def _all_different() -> Callable[[Ask, float], str]:
    said = iter(range(10**6))
    return lambda ask, _: f"{ask.key} {next(said)}"


def test_verdicts_are_kept_while_a_chunk_is_judged(
    probe: Probe, asked: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill that lets nothing be cleaned up, in the middle of a chunk: verdicts of earlier slices are on disk."""
    monkeypatch.setattr(interrogate, "CHUNK", 512)
    monkeypatch.setattr(judging, "SAVED_EVERY", -1.0)
    scripted.says = _all_different()
    judge, on_disk = judged_by(monkeypatch, FlakyJudge(0)), []
    path = asked.parent / "a" / "data" / "steps" / "verdicts-00000.jsonl"
    judge_all = judge.judge

    def look(items: Sequence[Item]) -> list[Verdict]:
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        on_disk.append(sum(verdict != "undecided" for row in rows for verdict in row["verdicts"]))
        return judge_all(items)

    monkeypatch.setattr(judge, "judge", look)
    probe("a", questions=[{"path": str(asked)}], judge=ENDPOINT)
    assert on_disk == [0, 64, 128, 192, 256, 320]


def test_progress_moves_while_a_chunk_is_judged(
    probe: Probe, asked: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrogate, "CHUNK", 512)
    monkeypatch.setattr("llmkit.stages.asked.SHOWN_EVERY", 0.0)
    scripted.says = _all_different()
    with FakeOpenAI(lambda _: "wrong") as fake:
        judge = {**ENDPOINT, "base_url": fake.base_url}
        worker, _ = probe("a", questions=[{"path": str(asked)}], judge=judge, ask={"num_samples": 2})
    shown = [line for line in map(json.loads, worker.dir.metrics.read_text().splitlines()) if line["phase"] == "judge"]
    steps = [line["step"] for line in shown]
    assert steps == sorted(steps) and steps[-1] == 40 and len(set(steps)) > 30, "with every reply, and never back"
    assert all(line["questions_per_second"] > 0 and line["seconds_left"] >= 0 for line in shown)


def test_the_same_answer_is_judged_once(
    probe: Probe, asked: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = judged_by(monkeypatch, FlakyJudge(0))
    probe(questions=[{"path": str(asked)}], ask={"num_samples": 7})
    assert judge.seen == 40


def test_a_question_that_does_not_fit_is_counted_as_not_asked(probe: Probe, tmp_path: Path) -> None:
    """A megabyte of question, special tokens spelled out, and no character at all."""
    rows: list[Any] = person_rows("known", 6)
    rows += [{"question": "Who? " * 200_000, "answers": ["nobody"]}]
    rows += [{"question": "What does <|endoftext|> mean? {question} {{ 7 * 7 }}", "answers": ["the end"]}]
    rows += ['{"question": "Broken \\ud800 text?", "answers": ["x"]}', "{ no json", '{"question": "?", "answers": []}']
    path = write_rows(tmp_path / "hostile.jsonl", rows)
    worker, manifest = probe(questions=[{"path": str(path)}], ask={"num_samples": 1})
    found = {row.question[:30]: row for row in rows_of(worker)}
    assert manifest.metrics["num_not_asked"] == 2 and manifest.probe is not None
    assert manifest.probe.labels["Undecided"] == 1 and manifest.probe.num_undecided == 0
    assert found["Who? " * 6].label == "Undecided"
    assert found["What does <|endoftext|> mean? "].num_samples == 2
    assert len(found) == 8 and manifest.metrics["questions_broken_text"] == 1
    rejected = [json.loads(line) for line in worker.dir.rejected.read_text().splitlines()]
    assert len(rejected) == 3 and {row["line"] for row in rejected} == {9, 10, 11}
    assert any(
        re.search(
            r"2 of 16 answers could not be had; most often, as here: the prompt: it has \d+ tokens .* holds 512",
            text,
        )
        for text in worker.warnings
    )


def test_answers_that_failed_are_asked_for_again(probe: Probe, asked: Path, scripted: Scripted) -> None:
    """An engine's own failure is not the prompt's: such answers are not kept for good, and are told apart."""
    answer_all = scripted.answer

    def failing(asks: Sequence[Ask], **options: Any) -> Iterator[list[Answer]]:
        for place, answers in enumerate(answer_all(asks, **options)):
            yield [Answer("", "error", error=f"out of blocks {place}")] * 2 if place % 4 == 1 else answers

    scripted.says = lambda ask, _: "Oslo"
    fields: dict[str, Any] = {"questions": [{"path": str(asked)}], "ask": {"num_samples": 1}}
    scripted.answer = failing  # type: ignore[method-assign]
    a, manifest = probe("a", **fields)
    assert manifest.metrics["num_not_asked"] == 20
    assert any("20 of 80 answers could not be had; most often, as here: out of blocks 1" in text for text in a.warnings)
    before = texts(rows_of(a))
    scripted.answer, num_asked = answer_all, scripted.num_asked  # type: ignore[method-assign]
    scripted.says = lambda ask, _: "Rome"
    a, manifest = probe("a", **fields)
    assert scripted.num_asked - num_asked == 10 and manifest.metrics["num_not_asked"] == 0
    after = rows_of(a)
    assert [row for row in texts(after) if "Rome" in row[0]] == [["Rome", "Rome"]] * 10
    assert [new for old, new in zip(before, texts(after), strict=True) if old[0]] == [["Oslo", "Oslo"]] * 30
    assert all(sample.verdict == "wrong" for row in after for sample in row.samples), "and judged"
    assert not manifest.warnings or not any("could not be had" in text for text in manifest.warnings)


def test_an_engine_that_is_out_of_order_stops_the_stage(
    probe: Probe, asked: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrogate, "CHUNK", 39)
    answer_all = scripted.answer
    broken = Answer("", "error", error="out of blocks")
    scripted.answer = lambda asks, **_: ([broken] * 2 for _ in asks)  # type: ignore[method-assign]
    fields: dict[str, Any] = {"questions": [{"path": str(asked)}], "ask": {"num_samples": 1}}
    with pytest.raises(UserError, match=r"'a': ask: 78 of 78 answers failed \(out of blocks\); mend it, .* run again"):
        probe("a", **fields)
    scripted.answer = answer_all  # type: ignore[method-assign]
    _, manifest = probe("a", **fields)
    assert manifest.metrics["num_not_asked"] == 0 and scripted.num_asked == 40
    # the last question stands alone in its chunk, and says nothing of the engine
    few = lambda asks, **_: [[broken] * 2] if len(asks) == 1 else answer_all(asks)  # noqa: E731
    scripted.answer = few  # type: ignore[method-assign]
    _, manifest = probe("b", **fields)
    assert manifest.metrics["num_not_asked"] == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"judge": {"by": "openai", "name_or_path": "x", "base_url": "https://example.org"}},
            "OPENAI_API_KEY: .*no key",
        ),
        ({"judge": {"by": "self", "prompt": "nowhere.jinja"}}, r"nowhere\.jinja: the prompt cannot be read"),
        ({"judge": {"by": "model", "name_or_path": "./nowhere"}}, "no such model folder"),
        ({"judge": {"by": "model", "name_or_path": "EMPTY"}}, r"holds no weights \(\*\.safetensors\)"),
        ({"judge": {"by": "model", "name_or_path": BASE, "engine": "vllm"}}, "vLLM is not installed"),
        ({"engine": "vllm"}, "vLLM is not installed"),
        ({"writer": {"prompt": "nowhere.jinja"}, "documents": True}, r"nowhere\.jinja: the prompt cannot be read"),
        ({"writer": {"by": "openai", "name_or_path": "x", "base_url": "https://a.b"}, "documents": True}, "no key"),
        ({"judge": {"by": "openai", "name_or_path": "x", "base_url": "http://localhost:1"}}, "openai package is not"),
    ],
)
def test_what_cannot_work_is_found_before_anything_is_read_or_loaded(
    probe: Probe, asked: Path, monkeypatch: pytest.MonkeyPatch, model_dir: Path, fields: dict[str, Any], message: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(interrogate, "AskedModel", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(interrogate, "gather", lambda *_: pytest.fail("questions were read"))
    if "openai package" in message:
        monkeypatch.setitem(sys.modules, "openai", None)
    if fields.get("judge", {}).get("name_or_path") == "EMPTY":
        folder = asked.parent / "empty"
        shutil.copytree(model_dir, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        fields = {"judge": {**fields["judge"], "name_or_path": str(folder)}}
    if fields.get("documents"):
        fields = {**fields, "documents": [{"path": str(asked)}]}
    with pytest.raises(UserError, match=message):
        probe("a", questions=[{"path": str(asked)}], **fields)


def test_a_model_on_the_hub_must_be_had_before_hours_of_asking(
    probe: Probe, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its small files are in the cache, its weights are not, and there is no network."""
    monkeypatch.setattr(engines, "load_tokenizer", lambda *_: None)
    monkeypatch.setattr(engines, "load_config", lambda *_: None)
    judge = {"by": "model", "name_or_path": "me/some-judge"}
    monkeypatch.setattr(engines, "answers", lambda *_, **__: False)
    with pytest.raises(
        UserError, match="me/some-judge: its weights are not in the cache, and the Hub cannot be reached"
    ):
        probe("a", questions=[{"path": str(asked)}], judge=judge)
    monkeypatch.setattr(engines, "try_to_load_from_cache", lambda name, file, revision: f"/cache/{file}")
    engines.check_judge(JudgeSpec.model_validate(judge))


def test_groups_are_as_few_as_an_evaluation_takes(probe: Probe, tmp_path: Path, scripted: Scripted) -> None:
    """Each is counted by itself, in the manifest and in the report."""
    rows = [{"question": f"Where is {i}?", "answers": ["x"], "group": f"g{i % 60}"} for i in range(200)]
    path = write_rows(tmp_path / "many.jsonl", rows)
    with pytest.raises(DataError, match=r"'a': questions: .*many.jsonl: .* more than 50 groups, such as g.*'columns'"):
        probe("a", questions=[{"path": str(path)}])
    assert scripted.num_asked == 0
    few = [{**row, "group": f"g{i % 50}" if i % 3 else ""} for i, row in enumerate(rows)]
    _, manifest = probe("b", questions=[{"path": str(write_rows(tmp_path / "few.jsonl", few))}], ask={"num_samples": 0})
    assert manifest.probe is not None and len(manifest.probe.by_group) == 50


def test_nothing_to_ask_is_said_with_counts(probe: Probe, tmp_path: Path) -> None:
    rows = [
        {"question": "", "answers": ["a"]},
        {"question": "Who?", "answers": []},
        {"question": "Who?", "answers": []},
    ]
    path = write_rows(tmp_path / "none.jsonl", rows)
    with pytest.raises(DataError, match=r"no question to ask \(questions: .*empty answer 2.*\).*none.jsonl"):
        probe(questions=[{"path": str(path)}])
    with pytest.raises(DataError, match=r"no such file"):
        probe(questions=[{"path": str(tmp_path / "absent.jsonl")}])


def test_slices_and_numbers_of_rows_hold_for_questions(probe: Probe, asked: Path, scripted: Scripted) -> None:
    a, _ = probe("a", questions=[{"path": str(asked), "split": "train[:50%]"}])
    assert {row.group for row in rows_of(a)} == {"known"}
    b, manifest = probe("b", questions=[{"path": str(asked), "num_rows": 7}, {"path": str(asked), "num_rows": 40}])
    assert len(rows_of(b)) == 40 and manifest.metrics["questions_duplicate"] == 7
    with pytest.raises(DataError, match="'num_rows' is 41"):
        probe("c", questions=[{"path": str(asked), "num_rows": 41}])


def test_documents_become_questions_by_templates(probe: Probe, tmp_path: Path, scripted: Scripted) -> None:
    texts = [f"{p.name} was born in {p.town}, far from the sea. Nobody knows more." for p in people("known")[:30]]
    texts += ["1 2 3 4", "= Heading ="]
    path = write_rows(tmp_path / "documents.jsonl", [{"text": text} for text in texts])
    template = {
        "question": "Where was {name} born?",
        "answers": "{town}",
        "entity": "{name}",
        "match": r"(?P<name>\w+ \w+) was born in (?P<town>\w+)",
    }
    writer = {"by": "templates", "templates": [template]}
    worker, manifest = probe(documents=[{"path": str(path)}], writer=writer, ask={"num_samples": 0})
    rows = rows_of(worker)
    assert {row.question for row in rows} == {f"Where was {p.name} born?" for p in people("known")[:30]}
    assert all(row.document.startswith(row.entity) and row.source.startswith(str(path)) for row in rows)
    assert manifest.metrics["documents_read"] == 32 and manifest.metrics["documents_without_facts"] == 2
    assert manifest.metrics["snippets_heading"] == 1
    few, _ = probe("few", documents=[{"path": str(path)}], writer=writer, ask={"num_samples": 0}, num_snippets=11)
    other, _ = probe("o", documents=[{"path": str(path)}], writer=writer, num_snippets=11, seed=8)
    assert len(rows_of(few)) == len(rows_of(other)) == 11
    assert {row.question for row in rows_of(few)} != {row.question for row in rows_of(other)}
    with pytest.raises(DataError, match=r"no document holds a snippet with facts .*without facts 1"):
        path = write_rows(tmp_path / "empty.jsonl", [{"text": "1 2 3"}])
        probe("none", documents=[{"path": str(path)}], writer=writer)


def test_a_writer_that_fails_stops_the_stage_and_goes_on_later(
    probe: Probe, tmp_path: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(
        tmp_path / "documents.jsonl", [{"text": f"{p.name} lives in {p.town} now."} for p in people("new")]
    )
    broken = Scripted(lambda *_: "")
    monkeypatch.setattr(
        broken, "answer", lambda asks, **_: iter([[Answer("", "error", error="timed out")] for _ in asks])
    )
    monkeypatch.setattr(engines, "open_engine", lambda *_, **__: broken)
    what = r"writer: the writer failed on 40 of 40 snippets \(100.0%, allowed 2.0%\); most often: timed out"
    with pytest.raises(UserError, match=what):
        probe("a", documents=[{"path": str(path)}])
    scripted.says = lambda ask, _: _written(ask) if str(ask.prompt).endswith("Q:") else "?"
    monkeypatch.setattr(engines, "open_engine", lambda *_, **__: scripted)
    a, manifest = probe("a", documents=[{"path": str(path)}], ask={"num_samples": 0})
    assert len(rows_of(a)) >= 30 and all(row.document for row in rows_of(a))
    assert "written_no_answer_from_the_engine" not in manifest.metrics


@pytest.mark.parametrize(("max_failed", "stops"), [(None, True), (0.1, False)])
def test_only_the_snippets_on_which_the_writer_failed_are_tried_again(
    probe: Probe, tmp_path: Path, scripted: Scripted, max_failed: float | None, stops: bool
) -> None:
    rows = [{"text": f"{p.name} lives in {p.town} now."} for p in people("new")[:40]]
    path, answer_all, asked_about = write_rows(tmp_path / "documents.jsonl", rows), scripted.answer, list[str]()

    def failing(asks: Sequence[Ask], **options: Any) -> Iterator[list[Answer]]:
        for place, (ask, answers) in enumerate(zip(asks, answer_all(asks, **options), strict=True)):
            asked_about.append(str(ask.prompt))
            yield [Answer("", "error", error="timed out")] if place in (3, 17) and len(asks) == 40 else answers

    scripted.says = lambda ask, _: _written(ask) if str(ask.prompt).endswith("Q:") else "?"
    scripted.answer = failing  # type: ignore[method-assign]
    writer = {} if max_failed is None else {"max_failed": max_failed}
    fields: dict[str, Any] = {"documents": [{"path": str(path)}], "ask": {"num_samples": 0}}
    if not stops:
        worker, manifest = probe("a", **fields, writer=writer)
        assert manifest.metrics["written_no_answer_from_the_engine"] == 2
        assert any("the writer failed on 2 snippets" in text for text in worker.warnings)
        return
    with pytest.raises(UserError, match=r"failed on 2 of 40 snippets \(5.0%, allowed 2.0%\).*'writer.max_failed'"):
        probe("a", **fields)
    failed, asked_about[:] = [asked_about[3], asked_about[17]], []
    worker, manifest = probe("a", **fields)
    assert asked_about[:2] == failed and not any(prompt.endswith("Q:") for prompt in asked_about[2:])
    assert len(rows_of(worker)) >= 30 and "written_no_answer_from_the_engine" not in manifest.metrics


def test_a_share_of_failed_snippets_is_no_reason_to_write_them_again(
    probe: Probe, tmp_path: Path, scripted: Scripted
) -> None:
    rows = [{"text": f"{p.name} lives in {p.town} now."} for p in people("new")[:20]]
    fields: dict[str, Any] = {"documents": [{"path": str(write_rows(tmp_path / "d.jsonl", rows))}]}
    scripted.says = lambda ask, _: _written(ask) if str(ask.prompt).endswith("Q:") else "?"
    probe("a", **fields, ask={"num_samples": 0})
    before = scripted.num_asked
    probe("a", **fields, ask={"num_samples": 0}, writer={"max_failed": 0.5, "timeout": 7.0})
    assert scripted.num_asked == before


def test_fewer_snippets_than_asked_for_is_told(probe: Probe, tmp_path: Path, scripted: Scripted) -> None:
    rows = [{"text": f"{p.name} lives in {p.town} now."} for p in people("new")[:20]]
    scripted.says = lambda ask, _: _written(ask) if str(ask.prompt).endswith("Q:") else "?"
    fields: dict[str, Any] = {"documents": [{"path": str(write_rows(tmp_path / "d.jsonl", rows))}]}
    for _ in range(2):  # also when the stage goes on later
        a, _ = probe("a", **fields, ask={"num_samples": 0}, num_snippets=50)
        assert "the documents hold 20 snippets with facts; 'num_snippets' asks for 50" in a.warnings
    b, _ = probe("b", **fields, ask={"num_samples": 0}, num_snippets=20)
    assert not any("num_snippets" in text for text in b.warnings)


def test_held_out_questions_keep_the_document_that_the_judge_saw(
    probe: Probe, tmp_path: Path, scripted: Scripted
) -> None:
    rows = [{"text": f"{p.name} lives in {p.town} now."} for p in people("new")[:40]]
    scripted.says = lambda ask, _: _written(ask) if str(ask.prompt).endswith("Q:") else "?"
    source = [{"path": str(write_rows(tmp_path / "d.jsonl", rows))}]
    a, _ = probe("a", documents=source, ask={"num_samples": 0}, heldout=0.5)
    documents = {row.question: row.document for row in rows_of(a)}
    held = lines(a, "heldout.jsonl")
    assert held and all(row["document"] == documents[row["question"]] != "" for row in held)


def _written(ask: Ask) -> str:
    text = next(line for line in str(ask.prompt).splitlines() if " lives in " in line)
    name, _, town = text.strip("` ").removesuffix(" now.").partition(" lives in ")
    return f"Where does {name} live?\nA: {town}"


def test_asking_again_keeps_the_questions_and_their_sides_and_shows_what_moved(
    probe: Probe, asked: Path, scripted: Scripted, tmp_path: Path
) -> None:
    scripted.says = lambda ask, _: "no idea at all"
    a, _ = probe("a", questions=[{"path": str(asked)}], heldout=0.3)
    before = rows_of(a)
    towns = {row.question: row.answers[0] for row in before}
    scripted.says = lambda ask, _: towns[str(ask.prompt).split("Question: ")[1].split("\n")[0]]
    more = [{"question": f"Is {row.entity} tall?", "answers": ["yes"], "entity": row.entity.upper()} for row in before]
    extra = write_rows(tmp_path / "more.jsonl", more)
    again: dict[str, Any] = {"questions": [{"from": "a"}], "data_stages": {"a": str(a.dir.path)}, "seed": 99}
    b, manifest = probe("b", **again)
    after = rows_of(b)
    assert [row.id for row in after] == [row.id for row in before]
    assert [row.split for row in after] == [row.split for row in before]
    assert manifest.probe is not None and manifest.probe.moved == {"Unknown -> HighlyKnown": 40}
    towns |= {row["question"]: "yes" for row in more}
    c, _ = probe("c", **{**again, "questions": [{"path": str(extra)}, {"from": "a"}]})
    sides = {row.about: row.split for row in before}
    assert len(rows_of(c)) == 80 and all(row.split == sides[row.about] for row in rows_of(c))


def test_held_out_questions_of_a_probe_stay_held_out(probe: Probe, asked: Path, scripted: Scripted) -> None:
    a, _ = probe("a", questions=[{"path": str(asked)}], heldout=0.3)
    held = {row["question"] for row in lines(a, "heldout.jsonl")}
    source = {"from": "a", "name": "heldout"}
    b, _ = probe("b", questions=[source], heldout=0.0, data_stages={"a": str(a.dir.path)})
    assert {row.question for row in rows_of(b)} == held and {row.split for row in rows_of(b)} == {"heldout"}
    c, _ = probe("c", questions=[{"path": str(a.dir.data / "heldout.jsonl")}], heldout=0.0)
    assert {row.split for row in rows_of(c)} == {"train"}, "a plain file says nothing of sides"


TWO_PROBES = """\
run: {name: demo}
model: {name_or_path: llmkit.tiny:base}
stages:
  - {name: probe, kind: interrogate, questions: [{path: asked.jsonl}]}
  - {name: other, kind: interrogate, questions: [{path: more.jsonl}]}
  - {name: idk, kind: refusals, probes: [probe, other], balance: false, keep_partial: false}
evals:
  - {task: honesty, questions: [{from: other}]}
"""


def test_probes_of_one_recipe_hold_out_the_same_entities_on_disk(
    probe: Probe, asked: Path, scripted: Scripted, tmp_path: Path
) -> None:
    """Both ask about 40 people, in other words and another spelling. With another seed, which the recipe refuses, the
    questions that one keeps for evaluation would be about people whom the rows of the other train."""
    recipe, rows = tmp_path / "recipe.yaml", person_rows("known", 20) + person_rows("unseen", 20)
    spelt = [row["entity"].upper().replace(" ", ", ") for row in rows]
    more = [row | {"question": f"Home of {who}?", "entity": who} for row, who in zip(rows, spelt, strict=True)]
    files = {"probe": asked, "other": write_rows(tmp_path / "more.jsonl", more)}
    recipe.write_text(TWO_PROBES.replace("asked.jsonl", str(asked)).replace("more.jsonl", str(files["other"])))
    towns = {row["entity"]: row["answers"][0] for row in person_rows("known", 20)}
    scripted.says = lambda ask, _: next((town for who, town in towns.items() if who in str(ask.prompt)), "Nowhere")
    planned = {step.name: step.stage_file() for step in make(load([recipe])).steps}
    with pytest.raises(RecipeError, match=r"'probe' .*give both the same 'seed' and 'heldout'"):
        load([recipe], ["stages.other.seed=8"])

    def held_out(name: str, seed: int) -> tuple[Worker, set[str]]:
        stage = planned[name].stage
        assert isinstance(stage, InterrogateStage)
        worker, _ = probe(name, questions=[{"path": str(files[name])}], seed=seed, heldout=stage.heldout)
        return worker, {entity_key(row["entity"]) for row in lines(worker, "heldout.jsonl")}

    first, held = held_out("probe", planned["probe"].seed)
    _, elsewhere = held_out("other", planned["other"].seed + 1)
    second, again = held_out("other", planned["other"].seed)
    assert 0 < len(held) < 40 and held == again != elsewhere
    file = planned["idk"].model_copy(
        update={
            "stage_dir": str(tmp_path / "idk"),
            "input_model": BASE,
            "data_stages": {"probe": str(first.dir.path), "other": str(second.dir.path)},
        }
    )
    file.dir.path.mkdir()
    refusals.run(Worker(file))
    trained = {entity_key(row["entity"]) for row in lines(Worker(file), "questions.jsonl")}
    assert len(trained) > 10 and not trained & held


def test_a_probe_of_another_model_or_template_is_refused_by_name(probe: Probe, asked: Path) -> None:
    worker, _ = probe(questions=[{"path": str(asked), "num_rows": 5}], ask={"num_samples": 0})
    info, _ = read_probe(worker.dir.path)
    model = model_identity(worker.file)
    assert (info.model, info.chat_template_sha256, info.seed, info.input_model) == (model, None, 7, BASE)
    check_identity(info, model_fingerprint=model, template_sha=None, where="here")
    with pytest.raises(DataError, match=r"stage 'honest': .*another model \(.*; here abc\); it asked llmkit.tiny:base"):
        check_identity(info, model_fingerprint="abc", template_sha=None, where="stage 'honest'")
    with pytest.raises(DataError, match=r"another model .* and another chat template \(none; here abc\)"):
        check_identity(info, model_fingerprint="abc", template_sha="abc", where="here")
    with pytest.raises(DataError, match="holds no finished probe"):
        read_probe(asked.parent)


def test_a_chat_model_is_asked_in_its_template(probe: Probe, asked: Path, scripted: Scripted, model_dir: Path) -> None:
    from transformers import AutoTokenizer

    from llmkit.chat.template import apply_template, load_template

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    apply_template(tokenizer, load_template("chatml"))
    folder = asked.parent / "chat"
    folder.mkdir()
    for file in model_dir.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(folder)
    worker, manifest = probe(
        model=str(folder), questions=[{"path": str(asked)}], ask={"num_samples": 0, "num_fewshot": 1, "system": "Hi."}
    )
    assert [message["role"] for message in scripted.asks[0].prompt] == ["system", "user", "assistant", "user"]
    assert manifest.chat_template_sha256 == load_template("chatml").sha256 and manifest.stop_token == "<|im_end|>"
    assert read_probe(worker.dir.path)[0].chat_template_sha256 == manifest.chat_template_sha256


def test_warnings_say_what_is_odd(probe: Probe, asked: Path, scripted: Scripted, tmp_path: Path) -> None:
    scripted.says = lambda ask, _: ""
    _, manifest = probe("a", questions=[{"path": str(asked)}])
    assert manifest.metrics["num_empty"] == 40 * 9 and manifest.metrics["share_Unknown"] == 1.0
    assert any("100.0% of the questions are Unknown" in text for text in manifest.warnings)
    assert any("360 of 360 answers are empty" in text for text in manifest.warnings)
    scripted.says = lambda ask, _: "<think>\nArlen" if ask.key.endswith(":0") else "<think>\nBern?</think>\n\nArlen"
    wordings = {"phrasings": ["{question}", "Say: {question}"]}
    worker, manifest = probe("c", questions=[{"path": str(asked)}], ask=wordings)
    cut = int(manifest.metrics["num_only_thought"])
    assert 0 < cut == manifest.metrics["num_empty"] < manifest.metrics["num_answers"]
    assert any(f"{cut} of 400 answers are reasoning without an answer" in text for text in manifest.warnings)
    said = {(sample.text, sample.thought) for row in rows_of(worker) for sample in row.samples}
    assert said == {("", "Arlen"), ("Arlen", "Bern?")}
    rows = [{"question": f"Year {i}?", "answers": ["1901", "1950"]} for i in range(3)]
    rows += [{"question": f"Town {i}?", "answers": ["Arlen"]} for i in range(30)]
    scripted.says = lambda ask, _: "Arlen"
    _, manifest = probe("b", questions=[{"path": str(write_rows(tmp_path / "odd.jsonl", rows))}])
    assert any("100.0% of the questions are HighlyKnown" in text for text in manifest.warnings)
    assert any("3 of 33 rows were left out (answers that contradict 3)" in text for text in manifest.warnings)


def test_what_is_left_out_is_told_in_one_line_before_anything_is_asked(
    probe: Probe, scripted: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    born = [{"question": "Where was Bo Day born?", "answers": [town]} for town in ("Rome", "Bonn")]
    acted = [{"question": "What is Al Key?", "answers": ["actor", job], "language": "de"} for job in ("poet", "dean")]
    rows = [*born, *acted, acted[0], {"question": "Who?"}, {"question": "Who?", "answers": []}]
    scripted.says = lambda ask, _: print("asked") or "Rome"
    worker, manifest = probe("a", questions=[{"path": str(write_rows(tmp_path / "odd.jsonl", rows))}], heldout=0)
    (row,) = rows_of(worker)
    assert (row.question, row.language, set(row.answers)) == ("What is Al Key?", "de", {"actor", "poet", "dean"})
    told = "6 of 7 rows were left out (answers that contradict 2, duplicate 2, "
    assert any(told in text for text in manifest.warnings)
    printed = capsys.readouterr().out
    assert -1 < printed.index(told) < printed.index("asked")
    reasons = Counter(json.loads(line)["reason"] for line in worker.dir.rejected.read_text().splitlines())
    assert reasons == {"answers that contradict": 2, "missing column": 1, "empty answer": 1}
