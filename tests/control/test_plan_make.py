# ruff: noqa: E501 - whole messages in tables
"""Plans: steps, inputs, batches, decisions. Pure: nothing is imported or written."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small import CONFIG

from llmkit.artifacts.files import write_json
from llmkit.artifacts.manifest import DataSummary, Manifest, write_manifest
from llmkit.artifacts.stagefile import Batch, StageFile, write_stage_file
from llmkit.errors import RecipeError
from llmkit.plan.batch import derive
from llmkit.plan.make import make
from llmkit.plan.render import print_plan, to_json
from llmkit.plan.step import Plan, Step
from llmkit.recipe import task_files
from llmkit.recipe.load import load
from llmkit.recipe.stages import SftStage

pytestmark = pytest.mark.usefixtures("code_stands_still")

HEAVY = ("torch", "transformers", "datasets", "accelerate", "trl", "peft", "huggingface_hub", "numpy")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """cpt -> sft on a local model, with one prompt."""
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "config.json", CONFIG)
    (tmp_path / "docs.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n\n')
    text = f"""\
run: {{name: demo, output_dir: {tmp_path}/runs}}
model: {{name_or_path: {tmp_path}/model}}
stages:
  - {{name: cpt, kind: pretrain, data: [{{path: {tmp_path}/docs.jsonl}}]}}
  - {{name: sft, kind: sft, from: cpt, data: [{{path: {tmp_path}/docs.jsonl}}], seed: 5}}
prompts: ["Who are you?"]
"""
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def plan(recipe: Path, *words: str) -> Plan:
    return make(load([recipe], words))


def steps(recipe: Path, *words: str) -> dict[str, Step]:
    return {step.name: step for step in plan(recipe, *words).steps}


def finish(step: Step, **fields: Any) -> None:
    """What a worker leaves."""
    write_stage_file(step.stage_file())
    write_manifest(
        step.stage_dir.path, Manifest(stage=step.name, kind=step.kind, fingerprint=step.fingerprint, **fields)
    )


def test_steps_and_their_links(recipe: Path, tmp_path: Path) -> None:
    made = plan(recipe)
    assert [step.name for step in made.steps] == ["eval-base", "cpt", "eval-cpt", "sft", "eval-sft"]
    assert [step.stage_dir.path.name for step in made.steps] == [
        "01-eval-base",
        "02-cpt",
        "03-eval-cpt",
        "04-sft",
        "05-eval-sft",
    ]
    base, cpt, eval_cpt, sft, eval_sft = (step.stage_file() for step in made.steps)
    run = tmp_path / "runs" / "demo"
    assert base.input_model == cpt.input_model == str(tmp_path / "model")
    assert (base.parent, base.compare_with) == (None, None)
    assert sft.input_model == eval_cpt.input_model == str(run / "02-cpt" / "model")
    assert sft.parent == eval_cpt.parent == str(run / "02-cpt")
    assert eval_cpt.compare_with == str(run / "01-eval-base")
    assert eval_sft.compare_with == str(run / "03-eval-cpt")
    assert [step.automatic for step in made.steps] == [True, False, True, False, True]


def test_evaluations_run_where_the_model_is_trained(recipe: Path, tmp_path: Path) -> None:
    """Also where a stage that only writes rows comes first, or was the last that they waited for."""
    rows = "  - {name: self, kind: identity, identity: {name: Nova}, num_rows: 20}\n"
    library = f"  - {{name: pages, kind: search_index, from: cpt, documents: [{{path: {tmp_path}/docs.jsonl}}]}}\n"
    tools = (
        "evals:\n  - {task: tools, questions: [{path: QUESTIONS}], tools: [{name: search, from: pages}], "
        "needless: [known]}\nprompts:"
    )
    text = (
        recipe.read_text()
        .replace("stages:\n", f"stages:\n{rows}")
        .replace("  - {name: sft", f"{library}  - {{name: sft")
    )
    recipe.write_text(text.replace("prompts:", tools))
    (tmp_path / "questions.jsonl").write_text('{"question": "a", "answers": ["b"]}\n')
    recipe.write_text(recipe.read_text().replace("QUESTIONS", str(tmp_path / "questions.jsonl")))
    found = steps(recipe, "stages.cpt.launch={accelerate: cpu/ddp, num_processes: 2, memory: 7GiB}")
    launched = [found[f"eval-{name}"].stage.launch for name in ("base", "cpt", "pages")]
    assert {(each.accelerate, each.num_processes, each.memory) for each in launched} == {("cpu/single", 1, "7GiB")}
    own = steps(recipe, "stages.pages.launch={memory: 3GiB}")["eval-pages"].stage.launch
    assert (own.accelerate, own.memory) == ("single", "3GiB")


def test_stage_files_are_complete_and_read_back(recipe: Path) -> None:
    for step in plan(recipe).steps:
        file = step.stage_file()
        assert StageFile.model_validate(json.loads(file.model_dump_json(by_alias=True))) == file
    found = steps(recipe)
    assert found["sft"].stage.seed == 5
    assert found["cpt"].stage.seed == found["eval-sft"].stage.seed == 42
    assert found["sft"].stage.trainer["packing"] is True
    assert found["eval-sft"].stage.prompts == ["Who are you?"]


def test_without_anything_to_measure_there_are_no_evaluations(recipe: Path) -> None:
    assert list(steps(recipe, "prompts=[]")) == ["cpt", "sft"]


def test_from_scratch_there_is_no_base_to_measure(recipe: Path) -> None:
    words = ["stages.cpt.init=scratch", "stages.cpt.tokenizer={}", f"stages.cpt.architecture={json.dumps(CONFIG)}"]
    found = steps(recipe, *words)
    assert list(found) == ["cpt", "eval-cpt", "sft", "eval-sft"]
    assert found["cpt"].input_model is None
    assert found["eval-cpt"].compare_with is None
    assert found["sft"].memory is not None, "the shape is handed down the chain"


def test_an_evaluation_passes_its_model_on(recipe: Path) -> None:
    text = recipe.read_text().replace(
        "prompts:",
        "  - {name: look, kind: evaluate, from: cpt}\n  - {name: more, kind: sft, from: look, data: [{path: x:y}]}\nprompts:",
    )
    recipe.write_text(text)
    found = steps(recipe)
    assert found["more"].parent == "cpt"
    assert found["more"].input_model == found["sft"].input_model
    assert found["eval-more"].compare_with == found["eval-sft"].compare_with
    assert found["look"].compare_with == str(found["eval-base"].stage_dir.path)


def test_an_adapter_that_is_not_merged_is_the_input(recipe: Path) -> None:
    assert str(steps(recipe, "stages.sft.peft={merge: false}")["eval-sft"].input_model).endswith("04-sft/adapter")
    assert str(steps(recipe, "stages.cpt.peft={}")["sft"].input_model).endswith("02-cpt/model")
    with pytest.raises(RecipeError, match="cannot be trained further"):
        steps(recipe, "stages.cpt.peft={merge: false}")


def test_rows_are_counted_where_that_is_cheap(recipe: Path) -> None:
    assert steps(recipe)["cpt"].rows == 2
    assert steps(recipe, "stages.cpt.data.0.num_rows=1")["cpt"].rows == 1
    assert steps(recipe, "stages.cpt.data.0.path=org/set")["cpt"].rows is None
    assert steps(recipe, "stages.cpt.data.0.path=org/set", "stages.cpt.data.0.num_rows=9")["cpt"].rows == 9


def test_a_finished_stage_is_skipped_and_its_figures_shown(recipe: Path) -> None:
    finish(steps(recipe)["eval-base"])
    finish(steps(recipe)["cpt"], data=DataSummary(num_rows=2, num_tokens=77))
    found = steps(recipe)
    assert [found[name].action for name in ("eval-base", "cpt", "eval-cpt")] == ["skip", "skip", "run"]
    assert (found["cpt"].rows, found["cpt"].tokens) == (2, 77)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["stages.cpt.trainer={learning_rate: 0.5}"], "trainer.learning_rate changed from 1e-05 to 0.5"),
        (["run.seed=1"], "seed changed from 42 to 1"),
        (
            ["stages.cpt.dedup=false", "stages.cpt.seed=2"],
            "dedup changed from true to false, seed changed from 42 to 2",
        ),
        (["stages.cpt.trainer={weight_decay: 0.5}"], "trainer.weight_decay added"),
    ],
)
def test_a_changed_stage_runs_and_says_what_changed(recipe: Path, words: list[str], reason: str) -> None:
    finish(steps(recipe)["cpt"])
    found = steps(recipe, *words)["cpt"]
    assert (found.action, found.reason) == ("run", reason)


def test_a_changed_stage_runs_what_follows_it(recipe: Path) -> None:
    for step in plan(recipe).steps:
        finish(step)
    assert {step.action for step in plan(recipe).steps} == {"skip"}
    found = steps(recipe, "stages.cpt.dedup=false")
    assert found["eval-base"].action == "skip"
    assert found["sft"].action == found["eval-sft"].action == "run"
    assert "input model changed" in found["sft"].reason


def test_what_follows_a_lost_stage_runs_again(recipe: Path) -> None:
    for step in plan(recipe).steps:
        finish(step)
    (steps(recipe)["cpt"].stage_dir.path / "manifest.json").unlink()
    found = steps(recipe)
    assert (found["sft"].action, found["sft"].reason) == ("run", "its input 'cpt' runs again")


def test_resume_needs_a_whole_checkpoint_and_the_same_layout(recipe: Path) -> None:
    step = steps(recipe)["cpt"]
    write_stage_file(step.stage_file())
    assert steps(recipe)["cpt"].action == "run"
    for number, whole in ((5, True), (10, True), (20, False)):
        folder = step.stage_dir.checkpoints / f"checkpoint-{number}"
        folder.mkdir(parents=True)
        if whole:
            (folder / ".complete").touch()
    found = steps(recipe)["cpt"]
    assert (found.action, found.reason) == ("resume", "it did not finish; goes on from checkpoint-10")
    assert steps(recipe, "stages.cpt.launch={accelerate: cpu/ddp, num_processes: 2}")["cpt"].action == "run"
    assert steps(recipe, "stages.cpt.dedup=false")["cpt"].action == "run"


def test_folders_of_removed_stages_are_named(recipe: Path) -> None:
    for step in plan(recipe).steps:
        finish(step)
    made = plan(recipe, "prompts=[]")
    assert [path.name for path in made.stale] == ["01-eval-base", "03-eval-cpt", "05-eval-sft"]
    assert [step.action for step in made.steps] == ["skip", "skip"], "a new number does not matter"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["stages.cpt.launch.num_processes=2"], "stages.0.launch.num_processes: 'single' starts one process"),
        (["stages.cpt.launch.accelerate=cpu/dpp"], "no Accelerate config 'cpu/dpp'; have: cpu/ddp, cpu/fsdp2"),
        (["stages.cpt.launch={accelerate: cpu/ddp, num_processes: 3}"], "stages.0.global_batch_size: 32 rows cannot be shared by 3 processes; use 30 or 33"),
        (["stages.cpt.trainer={per_device_train_batch_size: 5}"], "5 does not divide the 32 rows of a process; use 4 or 8, or global_batch_size 30 or 35"),
        (["stages.cpt.trainer={per_device_train_batch_size: many}"], "must be a whole number above 0, got 'many'"),
        (["stages.cpt.data.0.path=none.jsonl"], "stages.0.data.0.path: no such file: 'none.jsonl'"),
        (["stages.cpt.data.0.path=none/*.jsonl"], "no file matches 'none/*.jsonl'"),
        (["stages.sft.name=eval-cpt"], "'eval-cpt' is the name of an automatic evaluation"),
        (["stages.cpt.launch={accelerate: cpu/ddp, num_processes: 2, num_machines: 3}"], "2 processes cannot be shared by 3 machines; use a multiple of 3"),
    ],
)  # fmt: skip
def test_problems(recipe: Path, words: list[str], expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(recipe, *words)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"task": "ifeval"}, "evals.0: 'ifeval' needs packages that are not installed: langdetect; pip install langdetect"),
        ({"task": "gsm9k"}, "evals.0.task: no task 'gsm9k', here or in lm-eval; did you mean gsm8k?"),
        ({"task": "honsty"}, "evals.0.task: no task 'honsty', here or in lm-eval; did you mean honesty?"),
        ({"task": "humaneval"}, "evals.0: 'humaneval' runs programs that the model wrote; say 'allow_code_execution: true'"),
        ({"task": "gsm8k", "data": "nowhere"}, "evals.0.data: no such folder: 'nowhere'"),
        ({"task": "mine", "include_path": "nowhere"}, "evals.0.include_path: no such folder: 'nowhere'"),
    ],
)  # fmt: skip
def test_evaluations_that_could_not_run(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, spec: dict[str, str], expected: str
) -> None:
    find = task_files.find_spec
    monkeypatch.setattr(task_files, "find_spec", lambda name: None if name == "langdetect" else find(name))
    stage = {"name": "look", "kind": "evaluate", "evals": [spec]}
    for words, place in ((f"evals={json.dumps([spec])}", ""), (f"stages={json.dumps([stage])}", "stages.0.")):
        with pytest.raises(RecipeError) as caught:
            plan(recipe, words)
        assert place + expected in str(caught.value)


def test_a_task_of_ones_own_goes_before_lm_evals(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: humaneval\n")
    plan(recipe, f"evals={json.dumps([{'task': 'humaneval', 'include_path': str(tmp_path)}])}")


def test_all_problems_at_once(recipe: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(recipe, "stages.cpt.launch.num_processes=2", "stages.sft.data.0.path=none.jsonl")
    assert len(caught.value.problems) == 2


def test_a_folder_is_no_data_file(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"is a folder, not a file; use a glob"):
        plan(recipe, f"stages.cpt.data.0.path={tmp_path}")


def test_multi_cpu_is_refused(recipe: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("distributed_type: MULTI_CPU\nuse_cpu: true\n")
    with pytest.raises(RecipeError, match="starts one process"):
        plan(recipe, f"stages.cpt.launch={{accelerate: {config}, num_processes: 2}}")


@given(st.integers(1, 300), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 40)))
def test_batch_arithmetic(total: int, world: int, given_size: int | None) -> None:
    trainer = {} if given_size is None else {"per_device_train_batch_size": given_size}
    stage = SftStage.model_validate(
        {"kind": "sft", "data": [{"path": "x"}], "global_batch_size": total, "trainer": trainer}
    )
    batch = derive(stage, world)
    if total % (world * (given_size or 1)):
        assert not isinstance(batch, Batch)
        return
    assert isinstance(batch, Batch)
    product = batch.per_device_train_batch_size * batch.gradient_accumulation_steps * batch.world_size
    assert product == total
    assert batch.per_device_train_batch_size == given_size if given_size else batch.per_device_train_batch_size <= 8


def test_processes_started_by_hand_set_the_world_size(recipe: Path) -> None:
    made = make(load([recipe]), world_size=2)
    assert {step.stage_file().world_size for step in made.steps} == {2}
    assert made.steps[1].batch is not None
    assert made.steps[1].batch.gradient_accumulation_steps == 2


def test_render(recipe: Path) -> None:
    finish(steps(recipe)["eval-base"])
    console = Console(width=200, file=io.StringIO(), record=True)
    print_plan(plan(recipe), console, commands=True)
    text = console.export_text()
    assert "global_batch_size 32 = 8 rows x 4 accumulation x 1 processes" in text
    assert "-m llmkit.stages.pretrain" in text
    assert "activations" in text
    assert "01-eval-base" not in text, "a skipped step is one line"
    data = json.loads(to_json(plan(recipe)))
    assert [step["action"] for step in data["steps"]] == ["skip", "run", "run", "run", "run"]
    assert data["steps"][1]["memory"]["total"] > 0


def test_planning_imports_nothing_heavy_and_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    code = f"""
import sys
from llmkit.plan.make import make
from llmkit.recipe import task_files
from llmkit.recipe.load import load
make(load([{str(recipe)!r}]))
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert sorted(tmp_path.rglob("*")) == before
