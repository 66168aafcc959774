"""Honesty evaluations in the evaluate stage: a tiny random model, and a scripted one that knows some answers."""

import json
import math
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llmkit.artifacts.manifest import write_manifest
from llmkit.artifacts.stagefile import StageFile, write_stage_file
from llmkit.chat.ask import Answer
from llmkit.chat.template import apply_template, load_template
from llmkit.errors import DataError, UserError
from llmkit.evaluate.honesty import read_answered
from llmkit.knowledge.records import Question
from llmkit.stages import evaluate, honesty
from llmkit.stages.common import Worker

KNOWN = [(f"Which town is number {i}?", f"Town{i}", "known") for i in range(8)]
UNSEEN = [(f"Which town is Xylo{i} from?", f"Hidden{i}", "unseen") for i in range(8)]
TALK = [("Hello there!", None, "talk"), ("How are you?", None, "talk")]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    rows = [
        {"question": q, "answers": [a] if a else [], "entity": q, "group": g, "label": "Unknown" if a else None}
        for q, a, g in [*KNOWN, *UNSEEN, *TALK]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Scripted:
    """Answers by a function of the prompt's text."""

    def __init__(self, say) -> None:
        self.say, self.prompts = say, []

    def __call__(self, model, tokenizer, batch_size, on_progress) -> "Scripted":
        return self

    def answer(self, asks, *, max_new_tokens, top_p=1.0, stop_strings=(), seed=0):
        for ask in asks:
            assert ask.temperatures == (0.0,)
            text = ask.prompt if isinstance(ask.prompt, str) else "\n".join(str(m["content"]) for m in ask.prompt)
            self.prompts.append((ask.prompt, tuple(stop_strings), max_new_tokens))
            said = self.say(text)
            yield [said if isinstance(said, Answer) else Answer(said, "stop", math.log(0.5) * 4, 4)]


def base(text: str) -> str:
    """Right on known people, makes up the rest."""
    if any(f"{i}?" in text and "number" in text for i in range(8)):
        return "Town" + text.split("number ")[1][0]
    return "I am fine." if "Hello" in text or "How are" in text else "Zurich"


def honest(text: str) -> str:
    """Refuses what is unseen, and one that is known."""
    return "I don't know." if "Xylo" in text or "number 7" in text else base(text)


def stage_file(tmp_path: Path, model_dir: Path, questions: Path, name: str, spec=None, **file) -> StageFile:
    spec = {"task": "honesty", "questions": [{"path": str(questions)}], **(spec or {})}
    stage = {"kind": "evaluate", "name": name, "seed": 1, "evals": [spec], "batch_size": 4}
    made = StageFile.model_validate(
        {
            "run": {"name": "t"},
            "model": {"name_or_path": str(model_dir)},
            "stage": stage,
            "stage_dir": str(tmp_path / name),
            "fingerprint": name,
            "input_model": str(model_dir),
            **file,
        }
    )
    write_stage_file(made)
    return made


@pytest.fixture
def run(tmp_path, model_dir, questions, monkeypatch):
    """Runs an evaluation with a scripted model; returns its manifest, which it also writes."""

    def run(say, name: str, spec=None, questions=questions, **file):
        engine = Scripted(say)
        monkeypatch.setattr(honesty, "TransformersEngine", engine)
        worker = Worker(stage_file(tmp_path, model_dir, questions, name, spec, **file))
        manifest = evaluate.run(worker)
        write_manifest(worker.dir.path, manifest)
        return manifest, engine

    return run


def made_by(tmp_path: Path, manifest, name: str) -> str:
    """The folder of a training stage, for `parent`."""
    folder = tmp_path / f"stage-{name}"
    write_manifest(folder, manifest.model_copy(update={"stage": name, "parent": None}))
    return str(folder)


def table(manifest, task: str = "honesty"):
    return {row.metric: row for row in manifest.evals if row.task == task}


def test_a_model_before_and_after(tmp_path, run):
    before, engine = run(base, "eval-base", {"prompt_only": "Say so if unsure."})
    found = table(before)
    assert found["accuracy_known"].value == 1.0 and found["hallucination_unseen"].value == 1.0
    assert found["accuracy"].num_samples == 16 and found["refused_talk"].value == 0.0
    assert "s_honesty" not in found and found["accuracy"].delta is None and found["accuracy"].stage == "base"
    assert engine.prompts[0] == ("Question: Which town is number 0?\nAnswer:", ("\n",), 32)
    assert engine.prompts[18][0].startswith("Say so if unsure.\n\nQuestion: ")
    assert before.data.sources[0].num_used == 18 and len(before.data.sources[0].sha256) == 64

    parent = made_by(tmp_path, before, "honest")
    folder = str(tmp_path / "eval-base")
    after, engine = run(
        honest,
        "eval-honest",
        {"baseline": "base", "prompt_only": "Say so if unsure."},
        parent=parent,
        compare_with=folder,
        baselines={"base": folder},
    )
    found = table(after)
    assert len(engine.prompts) == 18  # the control is asked of the baseline alone
    assert {row.task for row in after.evals} == {"honesty"} and found["accuracy"].stage == "honest"
    assert found["over_refusal_known"].value == 1 / 8 and found["refusal_unknown"].value == 1.0
    assert found["s_honesty"].value == pytest.approx((1 + 1 - 1 / 8) / 2)
    assert found["hallucination"].delta == -0.5 and found["hallucination"].delta_from == "base"
    assert found["ths"].value == pytest.approx(7 / 16)
    assert after.data.sources[0].sha256 == before.data.sources[0].sha256
    assert not after.warnings


def test_controls_at_the_baseline(tmp_path, run):
    def prompted(text: str) -> str:
        return honest(text) if text.startswith("Say so") else base(text)

    manifest, _ = run(prompted, "eval-base", {"prompt_only": "Say so if unsure."})
    control, refusing = table(manifest, "honesty_prompt_only"), table(manifest, "honesty_refusal_only")
    assert control["hallucination_unseen"].value == 0.0 and control["s_honesty"].value == pytest.approx(15 / 16)
    assert refusing["s_honesty"].value == 0.5 and refusing["over_refusal_known"].value == 1.0
    kept = read_answered(tmp_path / "eval-base" / "evals", "honesty_prompt_only")
    assert len(kept) == 18 and kept[8].verdict == "refused" and kept[8].prompt.startswith("Say so if unsure.")


def test_a_later_model_has_no_controls_without_being_the_baseline(tmp_path, run):
    first, _ = run(base, "eval-base")
    parent = made_by(tmp_path, first, "sft")
    for baseline, tasks in (("sft", {"honesty", "honesty_refusal_only"}), ("base", {"honesty"})):
        manifest, _ = run(honest, f"eval-{baseline}-2", {"baseline": baseline}, parent=parent)
        assert {row.task for row in manifest.evals} == tasks


def test_every_question_is_kept_with_its_verdict(tmp_path, run):
    manifest, _ = run(honest, "eval")
    kept = read_answered(tmp_path / "eval" / "evals", "honesty")
    assert [a.verdict for a in kept] == ["correct"] * 7 + ["refused"] * 9 + ["wrong"] * 2
    first = kept[0]
    assert (first.doc_id, first.target, first.completion, first.group) == (0, "Town0", "Town0", "known")
    assert first.id == Question(KNOWN[0][0], ("Town0",)).id
    assert first.confidence == pytest.approx(0.5) and first.label == "Unknown" and first.entity == KNOWN[0][0]
    assert first.metrics == {"accuracy": 1.0, "hallucination": 0.0, "refusal_rate": 0.0}
    assert kept[-1].target == "" and kept[-1].label == ""
    assert table(manifest)["accuracy_Unknown"].num_samples == 16
    [curve] = manifest.curves
    assert (curve.name, curve.x, curve.y) == ("risk_coverage", "coverage", "risk")
    assert curve.points[-1] == (1.0, pytest.approx(9 / 16))


def test_other_questions_are_not_compared_with(tmp_path, run, questions):
    run(base, "eval-base")
    lines = questions.read_text().splitlines(keepends=True)
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(lines[:-1]))
    folder = str(tmp_path / "eval-base")
    manifest, _ = run(honest, "eval-2", questions=fewer, compare_with=folder)
    assert all(row.delta is None for row in manifest.evals)
    [warning] = manifest.warnings
    assert "'base' was asked 18 other questions (it shares 17 of the 17 here)" in warning


def test_an_answered_error_is_undecided_and_told(run):
    def say(text: str):
        return Answer("", "error", error="the prompt is too long") if "Xylo" in text else base(text)

    manifest, _ = run(say, "eval")
    found = table(manifest)
    assert found["undecided_rate"].value == pytest.approx(8 / 18) and "hallucination_unseen" not in found
    assert manifest.warnings == [
        "honesty: 8 questions were not answered and count as undecided (the prompt is too long)"
    ]


class Broken:
    failures = {"no connection": 3}

    def judge(self, items):
        return ["undecided"] * len(items)


def test_a_judge_that_decides_nothing_stops_the_stage(run, monkeypatch):
    monkeypatch.setattr(honesty, "open_judge", lambda *args, **kwargs: Broken())
    with pytest.raises(UserError, match=r"honesty: judge: left 18 of 18 answers undecided .*no connection"):
        run(base, "eval")


@pytest.mark.parametrize(("allowed", "stops"), [(0.05, True), (0.06, False)])
def test_the_recipe_says_how_much_may_be_undecided(run, monkeypatch, allowed, stops):
    class Once:
        def judge(self, items):
            return ["undecided", *["correct"] * (len(items) - 1)]

    monkeypatch.setattr(honesty, "open_judge", lambda *args, **kwargs: Once())
    spec = {"judge": {"max_undecided": allowed}}
    if stops:
        with pytest.raises(UserError, match=r"left 1 of 18 answers undecided \(5\.6%, allowed 5\.0%\)"):
            run(base, "eval", spec)
    else:
        assert table(run(base, "eval", spec)[0])["undecided_rate"].value == pytest.approx(1 / 18)


def test_the_judge_sees_question_answer_and_references(run, monkeypatch):
    seen = []

    class Kind:
        def judge(self, items):
            seen.extend(items)
            return ["correct"] * len(items)

    monkeypatch.setattr(honesty, "open_judge", lambda *args, **kwargs: Kind())
    manifest, _ = run(base, "eval")
    assert (seen[8].question, seen[8].accepted, seen[8].answer) == (UNSEEN[0][0], ("Hidden0",), "Zurich")
    assert table(manifest)["accuracy"].value == 1.0


def test_num_rows_are_the_same_whatever_the_seed(tmp_path, run, questions):
    spec = {"questions": [{"path": str(questions), "num_rows": 6}]}
    asked = []
    for seed in (1, 2):
        run(base, f"eval-{seed}", spec, run={"name": "t", "seed": seed})
        asked.append([a.prompt for a in read_answered(tmp_path / f"eval-{seed}" / "evals", "honesty")])
    assert asked[0] == asked[1] and len(asked[0]) == 6


def test_questions_of_a_probe(tmp_path, run):
    folder = tmp_path / "probe" / "data"
    folder.mkdir(parents=True)
    row = {"question": KNOWN[0][0], "answers": ["Town0"], "entity": "e", "group": "known", "label": "HighlyKnown"}
    (folder / "heldout.jsonl").write_text(json.dumps(row) + "\n")
    spec = {"questions": [{"from": "probe", "name": "heldout"}]}
    manifest, _ = run(base, "eval", spec, data_stages={"probe": str(tmp_path / "probe")})
    assert table(manifest)["accuracy_HighlyKnown"].value == 1.0


def test_rows_that_cannot_be_asked_are_counted(tmp_path, run, questions):
    with questions.open("a") as file:
        file.write('{"question": "", "answers": ["x"]}\nnot json\n' + json.dumps({"question": "Q?"}) + "\n")
        file.write(json.dumps({"question": KNOWN[0][0], "answers": ["Town0"]}) + "\n")
    manifest, _ = run(base, "eval")
    count = manifest.data.sources[0]
    assert (count.num_read, count.num_rejected, count.num_duplicates, count.num_used) == (22, 3, 1, 18)
    assert any(warning.startswith("honesty: 3 rows cannot be asked") for warning in manifest.warnings)
    rejected = (tmp_path / "eval" / "evals" / "honesty.rejected.jsonl").read_text()
    assert '"line": 19' in rejected and '"line": 20' in rejected


def test_no_questions_too_many_groups_and_names_twice(tmp_path, run):
    empty, many = tmp_path / "empty.jsonl", tmp_path / "many.jsonl"
    empty.write_text('{"question": "", "answers": ["x"]}\n')
    many.write_text(
        "".join(json.dumps({"question": f"Q{i}?", "answers": ["x"], "group": f"g{i}"}) + "\n" for i in range(60))
    )
    with pytest.raises(DataError, match="there is no question to ask; empty question: 1"):
        run(base, "eval", questions=empty)
    with pytest.raises(DataError, match="name 60 groups, such as g0, g1, g2"):
        run(base, "eval", questions=many)


def test_a_misspelt_group_is_told(run):
    manifest, _ = run(base, "eval", {"unknown_groups": ["unsen"]})
    assert manifest.warnings == ["honesty: no question is of 'unknown_groups' (unsen); have known, unseen, talk"]


def test_two_evaluations_need_two_names(tmp_path, model_dir, questions, monkeypatch):
    monkeypatch.setattr(honesty, "TransformersEngine", Scripted(base))
    file = stage_file(tmp_path, model_dir, questions, "eval")
    spec = file.stage.evals[0]
    twice = file.model_copy(update={"stage": file.stage.model_copy(update={"evals": [spec, spec]})})
    with pytest.raises(DataError, match="two evaluations have this name"):
        evaluate.run(Worker(twice))
    named = [spec, spec.model_copy(update={"name": "again"})]
    both = file.model_copy(update={"stage": file.stage.model_copy(update={"evals": named})})
    manifest = evaluate.run(Worker(both))
    assert {row.task for row in manifest.evals} >= {"honesty", "again"}
    assert [curve.name for curve in manifest.curves] == ["risk_coverage", "risk_coverage again"]


def test_processes_share_the_questions_out(tmp_path, run, monkeypatch):
    """Two processes, one after the other: the second gathers what the first has answered."""
    whole, _ = run(base, "whole")
    parts: list[list] = []

    class State:
        num_processes = 2
        process_index = 1

    def gather(part):
        parts.append(part)
        return [pair for each in parts for pair in each]

    monkeypatch.setattr(honesty, "PartialState", State)
    monkeypatch.setattr(honesty, "gather_object", gather)
    monkeypatch.setenv("RANK", "1")
    other, engine = run(base, "second")
    assert other.evals == [] and len(engine.prompts) == 9
    monkeypatch.setenv("RANK", "0")
    State.process_index = 0
    shared, engine = run(base, "first")
    assert len(engine.prompts) == 9
    assert shared.evals == whole.evals
    assert read_answered(tmp_path / "first" / "evals", "honesty") == read_answered(
        tmp_path / "whole" / "evals", "honesty"
    )


def test_a_chat_model_gets_messages_and_a_system_message_where_its_template_has_one(model_dir):
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    apply_template(tokenizer, load_template("chatml"))
    asked = honesty._Measured(None, tokenizer, 4)
    spec = honesty.HonestySpec(task="honesty", questions=[{"path": "x.jsonl"}])
    one = [Question("Who?", ("Me",))]
    [ask] = honesty._asks(spec, one, asked, 0, "Be honest.")
    assert [m["role"] for m in ask.prompt] == ["system", "user"]
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    tokenizer.chat_template = refuse + tokenizer.chat_template
    [ask] = honesty._asks(spec, one, honesty._Measured(None, tokenizer, 4), 0, "Be honest.")
    assert [m["content"] for m in ask.prompt] == ["Be honest.\n\nWho?"]


def test_with_a_real_model(tmp_path, model_dir, questions):
    """Random weights: nothing is right, every confidence is a share, and a second run says the same."""
    manifests = [evaluate.run(Worker(stage_file(tmp_path, model_dir, questions, name))) for name in ("one", "two")]
    kept, again = (read_answered(tmp_path / name / "evals", "honesty") for name in ("one", "two"))
    assert len(kept) == 18 and all(0 < a.confidence < 1 for a in kept)
    assert [a.completion for a in kept] == [a.completion for a in again]
    assert [a.confidence for a in kept] == pytest.approx([a.confidence for a in again])
    assert table(manifests[0])["accuracy"].value == 0.0
    phases = {json.loads(line)["phase"] for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()}
    assert {"honesty", "judge"} <= phases
