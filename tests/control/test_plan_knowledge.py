# ruff: noqa: E501 - whole messages in tables
"""Recipes that interrogate: order of the evaluations, who reads what, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import CONFIG

from llmkit.artifacts.files import write_json
from llmkit.artifacts.rundir import RunDir
from llmkit.artifacts.stagefile import write_stage_file
from llmkit.errors import RecipeError
from llmkit.launch.folders import STEPS, prepare
from llmkit.plan.keys import unset_keys
from llmkit.plan.make import make
from llmkit.plan.step import Plan
from llmkit.recipe.load import load

pytestmark = pytest.mark.usefixtures("code_stands_still")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "config.json", CONFIG)
    (tmp_path / "chats.jsonl").write_text('{"messages": []}\n')
    (tmp_path / "questions.jsonl").write_text('{"question": "a?", "answers": ["b"]}\n')
    text = f"""\
run: {{name: demo, output_dir: {tmp_path}/runs}}
model: {{name_or_path: {tmp_path}/model}}
stages:
  - {{name: sft, kind: sft, data: [{{path: {tmp_path}/chats.jsonl}}]}}
  - {{name: probe, kind: interrogate, from: sft, questions: [{{path: {tmp_path}/questions.jsonl}}]}}
  - {{name: idk, kind: refusals, from: sft, probes: [probe]}}
  - {{name: honest, kind: sft, from: sft, data: [{{from: idk}}]}}
  - {{name: reprobe, kind: interrogate, from: honest, questions: [{{from: probe, name: probe}}]}}
  - {{name: again, kind: refusals, from: honest, probes: [probe, reprobe]}}
  - {{name: dpo, kind: dpo, from: honest, data: [{{from: again, name: pairs}}]}}
evals:
  - {{task: honesty, questions: [{{from: probe, name: heldout}}], baseline: sft}}
  - {{task: honesty, name: frozen, questions: [{{path: {tmp_path}/questions.jsonl}}]}}
"""
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def plan(recipe: Path, *words: str) -> Plan:
    return make(load([recipe], words))


def problems(recipe: Path, *words: str) -> str:
    with pytest.raises(RecipeError) as caught:
        plan(recipe, *words)
    return str(caught.value).replace(f"{recipe.parent}/", "")


def honesty(made: Plan) -> dict[str, list[str]]:
    """Evaluation -> names of its honesty evaluations."""
    return {step.name: [spec.name for spec in step.stage.evals] for step in made.steps if step.kind == "evaluate"}


def test_the_interrogated_model_is_measured_on_what_its_probe_sets_aside(recipe: Path) -> None:
    made = plan(recipe)
    assert [step.name for step in made.steps] == [
        "eval-base", "sft", "eval-sft", "probe", "eval-probe", "idk", "honest", "eval-honest", "reprobe", "again", "dpo", "eval-dpo",
    ]  # fmt: skip
    assert honesty(made) == {
        "eval-base": ["frozen"],
        "eval-sft": ["frozen"],
        "eval-probe": ["honesty"],
        "eval-honest": ["honesty", "frozen"],
        "eval-dpo": ["honesty", "frozen"],
    }
    steps = {step.name: step for step in made.steps}
    assert steps["eval-probe"].parent == "sft"
    assert steps["honest"].parent == steps["idk"].parent == "sft"


def test_baselines_are_folders_of_earlier_evaluations(recipe: Path) -> None:
    steps = {step.name: step for step in plan(recipe).steps}
    folder = {name: str(step.stage_dir.path) for name, step in steps.items()}
    assert steps["eval-base"].baselines == {}
    assert steps["eval-sft"].baselines == {"base": folder["eval-base"]}
    assert steps["eval-honest"].baselines == {"sft": folder["eval-sft"]}, "the last that has the evaluation"
    assert steps["eval-dpo"].baselines == {"sft": folder["eval-probe"], "honest": folder["eval-honest"]}
    by_name = {spec.name: spec.baseline for spec in steps["eval-dpo"].stage.evals}
    assert by_name == {"honesty": "sft", "frozen": "honest"}


def test_stages_read_probes_and_rows(recipe: Path) -> None:
    steps = {step.name: step for step in plan(recipe, "stages.honest.data.0.require_known=probe").steps}
    assert set(steps["idk"].data_stages) == {"probe"}
    assert set(steps["honest"].data_stages) == {"idk", "probe"}
    assert set(steps["again"].data_stages) == {"probe", "reprobe"}
    assert set(steps["eval-honest"].data_stages) == {"probe"}
    assert steps["again"].stage_file().data_stages.keys() == {"probe", "reprobe"}


def test_refusals_in_own_words_are_refusals_for_all_judges(recipe: Path) -> None:
    made = plan(recipe, "stages.idk.refusals={texts: [Pass.]}")
    for step in made.steps:
        judges = [spec.judge for spec in getattr(step.stage, "evals", [])] + [getattr(step.stage, "judge", None)]
        assert all(judge.refusals == ["Pass."] for judge in judges if judge is not None)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stages.idk.probes=[sft]", "'sft' is no 'interrogate' stage"),
        ("stages.idk.probes=[prob]", "no stage is called 'prob'"),
        ("stages.idk.from=base", "the probes asked the model of sft, and this stage starts from 'base'; set 'from: sft'"),
        ("stages.honest.from=base", "its rows were made from probes of the model of sft, and this stage starts from 'base'"),
        ("stages.dpo.data.0.require_known=probe", "the probe asked the model of sft, and this stage starts from 'honest'"),
        ("stages.dpo.data.0.name=null", "a 'dpo' stage reads pairs, not conversations; set 'name: pairs'"),
        ("stages.honest.data.0.name=pairs", "an 'sft' stage reads conversations, not pairs"),
        ("evals.0.baseline=idk", "'idk' makes no model"),
        ("evals.1.name=honesty", "two evaluations are called 'honesty'"),
        ("evals.0.questions.0.from=later", "no stage is called 'later'"),
        ('stages.probe.questions.0.templates=[{question: "Who is {nam}?", answers: "{a}", match: "(?P<name>x)"}]', "templates.0.question: {nam} is no named group of 'match'; did you mean {name}?"),
        ('stages.probe.questions.0.templates=[{question: "Who?", answers: "{a}"}]', "names no field, so every row would ask the same"),
        ("stages.probe.questions=[{path: nowhere.jsonl}]", "no such file: 'nowhere.jsonl'"),
        ("evals.1.questions=[{path: nowhere.jsonl}]", "evals.1.questions.0.path: no such file: 'nowhere.jsonl'"),
        ("stages.probe.judge={by: openai, name_or_path: m, base_url: 'localhost:80'}", "'localhost:80' is no address; write it like http"),
        ("stages.probe.questions=[]", "give 'questions' or 'documents'"),
        ("stages.probe.judge={by: openai}", "'by: openai' needs 'name_or_path'"),
        ("stages.probe.writer={by: templates}", "'templates' and 'by: templates' go together"),
        ("stages.probe.ask={phrasings: [Say it]}", "the phrasing 'Say it' has no {question}"),
        ("stages.probe.ask={num_variants: 2}", "set 'num_fewshot'"),
        ("stages.probe.questions.0.fraction=0.5", "'fraction' is for training mixtures; take a number of questions with 'num_rows'"),
        ("evals.0.questions.0.format=messages", "questions have no 'format'; name their columns in 'columns'"),
        ("evals.1.name=frozen_prompt_only", "is taken by the control of another"),
        ("stages.6={name: dpo, kind: dpo, from: honest, data: [{from: again, name: pairs}], peft: {r: 4}, trainer: {sync_ref_model: true}}", "TRL cannot move the reference model towards an adapter"),
        ("stages.dpo.name=eval-probe", "is the name of an automatic evaluation"),
    ],
)  # fmt: skip
def test_refused(recipe: Path, word: str, expected: str) -> None:
    assert expected in problems(recipe, word)


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        ('{"question": "Who?", "possible_answers": ["Ida"]}', "{answers: posible_answers}", "columns.answers: no column 'posible_answers' in the first rows of q.jsonl; did you mean 'possible_answers'?"),
        ('{"question": "Who?", "answer": ["Ida"]}', "{}", "questions.0: no column 'answers' in the first rows of q.jsonl; did you mean 'answer'?"),
        ('{"q": "Who?", "all": {"a": ["Ida"]}}', "{question: q, answers: 'all.a[*]', entity: who}", "columns.entity: no column 'who' in the first rows of q.jsonl; map 'entity' in 'columns'; have: q, all"),
        ('{"odd": 1}\n{"question": "Who?", "answers": "Ida"}', "{}", ""),
        ('{"q": "Who?", "all": {"a": ["Ida"]}}', "{question: q, answers: 'all.a[*]'}", ""),
        ("no json at all", "{}", ""),
    ],
)  # fmt: skip
def test_columns_are_looked_for_in_the_first_rows(recipe: Path, rows: str, columns: str, expected: str) -> None:
    path = recipe.parent / "q.jsonl"
    path.write_text(rows + "\n")
    word = f"stages.probe.questions=[{{path: {path}, columns: {columns}}}]"
    if expected:
        assert expected in problems(recipe, word)
    else:
        make(load([recipe], [word]))


def test_keys_that_endpoints_will_need_are_named(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    judge = "by: openai, name_or_path: m, api_key_env: MY_KEY"
    far = load([recipe], [f"evals.1.judge={{{judge}, base_url: 'https://a.org/v1'}}"]).recipe
    assert unset_keys(far) == ["MY_KEY"]
    assert not unset_keys(load([recipe], [f"stages.probe.judge={{{judge}, base_url: 'http://localhost:1/v1'}}"]).recipe)
    monkeypatch.setenv("MY_KEY", "x")
    assert not unset_keys(far)


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("stages.idk.known_ratio=2", {"idk", "honest", "eval-honest", "reprobe", "again", "dpo", "eval-dpo"}),
        ("stages.again.relabel=random", {"again", "dpo", "eval-dpo"}),
        ("evals.1.prompt_only=Say so.", {"eval-base", "eval-sft", "eval-probe", "eval-honest", "eval-dpo"}),
        ("evals.0.max_new_tokens=8", {"eval-probe", "eval-honest", "eval-dpo"}),
        ("stages.reprobe.launch={accelerate: cpu/ddp, num_processes: 2}", set()),
        ("stages.dpo.trainer={beta: 0.2}", {"dpo", "eval-dpo"}),
        ("stages.reprobe.thresholds={highly_known: 0.5}", {"reprobe", "again", "dpo", "eval-dpo"}),
        ("stages.reprobe.batch_size=3", set()),
    ],
)
def test_fingerprints(recipe: Path, word: str, changed: set[str]) -> None:
    before, after = ({s.name: s.fingerprint for s in plan(recipe, *words).steps} for words in ((), (word,)))
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_changed_question_file_is_asked_again(recipe: Path) -> None:
    before = {s.name: s.fingerprint for s in plan(recipe).steps}
    (recipe.parent / "questions.jsonl").write_text('{"question": "a?", "answers": ["c"]}\n')
    after = {s.name: s.fingerprint for s in plan(recipe).steps}
    assert before["probe"] != after["probe"]
    assert before["sft"] == after["sft"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["stages.reprobe.judge={by: model, name_or_path: FOLDER}"], {"reprobe", "again", "dpo", "eval-dpo"}),
        (["stages.reprobe.writer={by: model, name_or_path: FOLDER}", "stages.reprobe.documents=[{path: a/b}]"], {"reprobe", "again", "dpo", "eval-dpo"}),
        (["evals.1.judge={by: model, name_or_path: FOLDER}"], {"eval-base", "eval-sft", "eval-probe", "eval-honest", "eval-dpo"}),
        (["stages.reprobe.judge={by: openai, name_or_path: FOLDER}"], set()),
    ],
)  # fmt: skip
def test_other_weights_of_a_local_judge_or_writer(recipe: Path, words: list[str], expected: set[str]) -> None:
    folder = recipe.parent / "judge"
    folder.mkdir()
    words = [word.replace("FOLDER", str(folder)) for word in words]
    found = []
    for weights in (b"weights", b"others!"):
        (folder / "model.safetensors").write_bytes(weights)
        found.append({step.name: step.fingerprint for step in plan(recipe, *words).steps})
    assert {name for name in found[0] if found[0][name] != found[1][name]} == expected


def test_answers_outlive_a_change_and_an_unfinished_probe_goes_on(recipe: Path) -> None:
    step = next(s for s in plan(recipe).steps if s.name == "probe")
    answers = step.stage_dir.data / STEPS / "answers-00000.jsonl"
    answers.parent.mkdir(parents=True)
    answers.write_text("{}\n")
    write_stage_file(step.stage_file())
    assert next(s.action for s in plan(recipe).steps if s.name == "probe") == "resume"

    changed = next(s for s in plan(recipe, "stages.probe.judge={refusals: [Pass.]}").steps if s.name == "probe")
    assert changed.action == "run"
    (step.stage_dir.path / "log.txt").write_text("old")
    prepare(RunDir(recipe.parent / "runs" / "demo"), changed)
    assert answers.read_text() == "{}\n", "the stage itself knows which of them still hold"
    assert not (step.stage_dir.path / "log.txt").exists()


def test_a_reference_model_takes_memory(recipe: Path) -> None:
    step = {s.name: s for s in plan(recipe).steps}
    alone = {s.name: s for s in plan(recipe, "stages.dpo.peft={r: 4}").steps}
    terms = step["dpo"].memory.terms
    assert terms["reference model"] == terms["weights"] > 0
    assert "reference model" not in alone["dpo"].memory.terms
    assert "reference model" not in step["honest"].memory.terms
    assert terms["activations"] > step["honest"].memory.terms["activations"]


def test_merged_keys_stand_where_their_merge_does(recipe: Path) -> None:
    text = recipe.read_text() + "prompts: &p [Hi]\n"
    text = text.replace("data: [{from: idk}]}", "data: [{from: idk}], trainer: &t {learning_rate: 1.0e-5}}")
    text = text.replace("name: pairs}]}", "name: pairs}], trainer: {<<: *t, bta: 0.2}}")
    recipe.write_text(text)
    assert "recipe.yaml:10: stages.6.trainer.bta: unknown option of DPOConfig; did you mean 'beta'?" in problems(recipe)
    recipe.write_text(text.replace("bta", "beta"))
    trainer = next(s for s in plan(recipe).steps if s.name == "dpo").stage.trainer
    assert (trainer["learning_rate"], trainer["beta"]) == (1.0e-5, 0.2)
