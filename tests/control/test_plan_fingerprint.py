"""What changes a fingerprint, and what does not."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import llmkit.preference
from llmkit.artifacts.files import write_json
from llmkit.plan import code, fingerprint
from llmkit.plan.files import WHOLE, digest, digest_of_package
from llmkit.plan.make import make
from llmkit.recipe.load import load
from llmkit.recipe.parts import ModelSpec
from llmkit.recipe.stages import SftStage

pytestmark = pytest.mark.usefixtures("code_stands_still")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "config.json", {"model_type": "unknown"})
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "docs.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "chat.jinja").write_text("template")
    (tmp_path / "rows_package").mkdir()
    (tmp_path / "rows_package" / "source.py").write_text("def rows(): ...")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text("task: mine")
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""\
run: {{name: demo, output_dir: {tmp_path}/runs}}
model: {{name_or_path: {tmp_path}/model, chat_template: {tmp_path}/chat.jinja}}
stages:
  - name: cpt
    kind: pretrain
    data: [{{path: {tmp_path}/docs.jsonl}}]
    heldout: {{general: [{{path: "rows_package.source:rows"}}]}}
  - {{name: sft, kind: sft, from: cpt, data: [{{path: org/chats}}]}}
evals: [{{task: mine, include_path: {tmp_path}/tasks}}]
prompts: ["Who are you?"]
""")
    return path


def fingerprints(recipe: Path, *words: str) -> dict[str, str]:
    return {step.name: step.fingerprint for step in make(load([recipe], words)).steps}


def changed(recipe: Path, *words: str, before: dict[str, str]) -> list[str]:
    after = fingerprints(recipe, *words)
    return [name for name, value in after.items() if before.get(name) != value]


ALL = ["eval-base", "cpt", "eval-cpt", "sft", "eval-sft"]
TRAINED = ["cpt", "eval-cpt", "sft", "eval-sft"]
LAST = ["sft", "eval-sft"]
EVALUATED = ["eval-base", "eval-cpt", "eval-sft"]


def test_planning_twice_gives_the_same(recipe: Path) -> None:
    assert changed(recipe, before=fingerprints(recipe)) == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("run.seed=1", ALL),
        ("model.dtype=bfloat16", ALL),
        ("model.revision=abc", []),  # a local folder has no revisions
        ("stages.cpt.trainer={learning_rate: 1}", TRAINED),
        ("stages.cpt.global_batch_size=8", TRAINED),
        ("stages.cpt.data.0.num_rows=1", TRAINED),
        ("stages.cpt.peft={r: 4}", TRAINED),
        ("stages.cpt.heldout={}", TRAINED),
        ("stages.sft.data.0.revision=abc", LAST),
        ("stages.sft.data.0.columns={prompt: q}", LAST),
        ("stages.sft.from=base", LAST),
        ("stages.sft.max_truncated=0.5", LAST),
        ("evals.0.limit=2", EVALUATED),
        ("prompts=[Hello]", EVALUATED),
    ],
)
def test_changed_settings(recipe: Path, word: str, expected: list[str]) -> None:
    assert changed(recipe, word, before=fingerprints(recipe)) == expected


@pytest.mark.parametrize(
    "word",
    [
        "run.name=other",
        "run.output_dir=elsewhere",
        "stages.cpt.launch.env={A: b}",
        "stages.cpt.launch={accelerate: cpu/zero3, num_processes: 2}",
        "stages.cpt.trainer={per_device_train_batch_size: 2}",
        "stages.cpt.trainer={logging_steps: 1, save_steps: 3, gradient_checkpointing: false}",
    ],
)
def test_what_does_not_change_the_result(recipe: Path, word: str) -> None:
    assert changed(recipe, word, before=fingerprints(recipe)) == []


def test_a_new_name_alone_changes_nothing(recipe: Path) -> None:
    before = fingerprints(recipe)
    after = fingerprints(recipe, "stages.sft.name=talk")
    assert after["talk"] == before["sft"]


def test_a_later_stage_does_not_matter_to_an_earlier_one(recipe: Path) -> None:
    assert changed(recipe, "stages.sft.seed=1", before=fingerprints(recipe)) == LAST


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("docs.jsonl", TRAINED),
        ("rows_package/source.py", TRAINED),
        ("model/model.safetensors", ALL),
        ("model/config.json", ALL),
        ("chat.jinja", [*EVALUATED, "sft"]),
        ("tasks/mine.yaml", EVALUATED),
    ],
)
def test_changed_files(recipe: Path, file: str, expected: list[str]) -> None:
    before = fingerprints(recipe)
    path = recipe.parent / file
    path.write_text(path.read_text() + " ")
    os.utime(path, ns=(1, 1))
    digest_of_package.cache_clear()
    assert sorted(changed(recipe, before=before)) == sorted(expected)


def test_touching_a_file_changes_nothing(recipe: Path) -> None:
    before = fingerprints(recipe)
    os.utime(recipe.parent / "docs.jsonl", ns=(1, 1))
    os.utime(recipe.parent / "model" / "model.safetensors", ns=(1, 1))
    assert changed(recipe, before=before) == []


def test_code_of_the_rooms_that_do_the_work(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    for room in ("stages", "data", "chat", "modeling", "evaluate", "generation"):
        (package / room).mkdir(parents=True)
    monkeypatch.setattr(code, "PACKAGE", package)
    before = fingerprints(recipe)
    (package / "data" / "new.py").write_text("x = 1")
    assert changed(recipe, before=before) == TRAINED, "evaluations of what was trained follow"
    (package / "data" / "new.py").unlink()
    (package / "generation" / "new.py").write_text("x = 1")
    assert changed(recipe, before=before) == EVALUATED
    (package / "generation" / "new.py").unlink()
    (package / "stages" / "sft.py").write_text("x = 1")
    assert changed(recipe, before=before) == LAST
    (package / "stages" / "sft.py").unlink()
    (package / "stages" / "common.py").write_text("x = 1")
    assert changed(recipe, before=before) == ALL


def test_texts_that_lie_beside_the_code(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    (package / "chat").mkdir(parents=True)
    monkeypatch.setattr(code, "PACKAGE", package)
    before = fingerprints(recipe)
    (package / "chat" / "prompt.jinja").write_text("Answer.")
    assert changed(recipe, before=before) == ALL


def test_ranks_depend_on_all_that_reads_the_answers() -> None:
    files = Path(llmkit.preference.__file__).parent.glob("*.py")
    read = {name for file in files for name in re.findall(r"from llmkit\.chat\.(\w+) import", file.read_text())}
    assert read and {f"chat/{name}.py" for name in read} <= set(code._ROOMS["rank"])


def test_code_that_early_stopping_asks_and_judges_with() -> None:
    data, rooms = [{"path": "org/chats"}], {f"code of llmkit/{room}" for room in ("knowledge", "generation")}
    plain = SftStage(kind="sft", data=data)
    stopped = SftStage(kind="sft", data=data, early_stopping={"from": "idk"})
    found = [set(fingerprint.inputs_of(s, ModelSpec(), None, fingerprint.Upstream())) for s in (plain, stopped)]
    assert not rooms & found[0] and rooms < found[1]
    assert "code of llmkit/stages/early_stopping.py" in found[1] - found[0]


def test_large_files_are_told_apart_by_ends_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(WHOLE + 2**21)
    os.utime(path, ns=(5, 5))
    first = digest(path)
    assert digest(path) == first
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    os.utime(path, ns=(5, 5))
    # the cache is by size and time, as make's is
    from llmkit.plan.files import _digest

    _digest.cache_clear()
    assert digest(path) != first
    assert digest(tmp_path / "none") == "missing"
