"""A short trial of an imported recipe: the embedded model instead of its model, a few rows instead of its data."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.importing.convert import convert
from llmkit.importing.draft import Options
from llmkit.importing.write import write
from llmkit.plan.make import make
from llmkit.recipe.load import load
from llmkit.recipe.trainer_keys import PRACTICE

FOREIGN = Path(__file__).resolve().parent / "control/foreign"
SMALL = {"max_steps": 2, "bf16": False, "report_to": "none", "save_strategy": "no", "per_device_train_batch_size": 2}
"""What two steps on a CPU need, whatever the recipe says."""
ANSWERS = {"max_completion_length": 16, "num_generations": 2}
"""Answers that take no minutes, two of which make a group."""
ONLY_GPU = {"use_liger_kernel": False, "use_vllm": False, "tf32": None}
"""Options that need a GPU, where a recipe sets them."""
PLAIN = (
    "{%- for m in messages %}{{ m.role + ': ' }}{%- if m.role == 'assistant' %}"
    "{%- generation %}{{ m.content + eos_token }}{%- endgeneration %}"
    "{%- else %}{{ m.content }}{%- endif %}{{ '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ 'assistant: ' }}{%- endif %}"
)
KEPT = ("format", "columns", "fraction", "system")
"""What a source says of its rows; the rest says where they are."""
Row = dict[str, Any]


def _turn(role: str, content: str) -> Row:
    return {"role": role, "content": content}


def _messages(question: str, right: str) -> list[Row]:
    return [_turn("user", question), _turn("assistant", right), _turn("user", "Sure?"), _turn("assistant", right)]


def _sharegpt(question: str, right: str, wrong: str) -> Row:
    names = {"user": "human", "assistant": "gpt"}
    return {"conversations": [{"from": names[m["role"]], "value": m["content"]} for m in _messages(question, right)]}


def _preference(question: str, right: str, wrong: str) -> Row:
    both = {
        side: [_turn("user", question), _turn("assistant", a)] for side, a in (("chosen", right), ("rejected", wrong))
    }
    return both


SHAPES: dict[str, Callable[[str, str, str], Row]] = {
    "text": lambda question, right, wrong: {"text": f"{question} {right} " * 8},
    "messages": lambda question, right, wrong: {"messages": _messages(question, right)},
    "sharegpt": _sharegpt,
    "alpaca": lambda question, right, wrong: {"instruction": question, "input": "Be brief.", "output": right},
    "preference": _preference,
    "problem": lambda question, right, wrong: {"prompt": question, "answer": right.split()[-1].strip(".")},
}
"""Format of a source -> one of its rows."""
DEFAULTS = {"pretrain": "text", "dpo": "preference", "reward": "preference", "grpo": "problem", "rloo": "problem"}
"""Kind of a stage -> the shape of rows whose format the recipe leaves to their columns; else conversations."""


def rows(kind: str, source: Row) -> list[Row]:
    """Two dozen rows of the shape, and with the names of columns, that a source of a stage says."""
    shape, columns = source.get("format") or DEFAULTS.get(kind, "messages"), source.get("columns", {})
    said = [(f"What is {n} and {n}?", f"It is {2 * n}.", f"It is {2 * n + 1}.") for n in range(24)]
    made = [SHAPES[shape](*texts) for texts in said]
    if "prompt" in columns and shape == "preference":
        made = [{"prompt": row["chosen"][:1], **{side: row[side][-1] for side in row}} for row in made]
    return [{columns.get(name, name): value for name, value in row.items()} for row in made]


def _local(folder: Path, kind: str, name: str, sources: list[Row]) -> list[Row]:
    """The same sources, each with a file of rows that it can read."""
    found = []
    for index, source in enumerate(sources):
        path = folder / f"{name}-{index}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows(kind, source)))
        found.append({"path": str(path), **{key: source[key] for key in KEPT if key in source}})
    return found


def overlay(folder: Path, recipe: Path, template: str | None = "chatml") -> Path:
    """Writes the rows, and the overlay that swaps model, data and what needs a GPU; the rest stays as imported."""
    data = YAML(typ="safe").load(recipe.read_text(encoding="utf-8"))
    stage = data["stages"][0]
    kind, practised = stage["kind"], stage["kind"] in PRACTICE
    changed: Row = {"name": stage["name"], "trainer": _trainer(stage), "global_batch_size": 4}
    changed["data"] = _local(folder, kind, "rows", stage["data"])
    if "heldout" in stage:
        changed["heldout"] = {"test": _local(folder, kind, "held", stage["heldout"]["test"])}
    if "launch" in stage:
        changed["launch"] = {"accelerate": "single", "num_processes": 1}
    if practised:
        changed["rewards"] = [{"name": "exact"} if "path" in reward else reward for reward in stage["rewards"]]
        changed |= {"measure": {"num_samples": 0}} if "heldout" in stage else {}
    model = {"name_or_path": "llmkit.tiny:base", "revision": None, "dtype": "float32", "attn_implementation": None}
    if kind != "pretrain" and "chat_template" not in data["model"]:
        model["chat_template"] = _known_tokens(folder) if practised else template
    trial = folder / "trial.yaml"
    with trial.open("w") as file:
        YAML().dump({"run": {"output_dir": str(folder / "runs")}, "model": model, "stages": [changed]}, file)
    return trial


def _known_tokens(folder: Path) -> str:
    """A template without tokens of its own: nobody practises with tokens that the embedded base has never seen."""
    path = folder / "plain.jinja"
    path.write_text(PLAIN)
    return str(path)


def _trainer(stage: Row) -> Row:
    options = stage["trainer"]
    small = SMALL | (ANSWERS if stage["kind"] in PRACTICE else {"max_length": 128})
    return small | {key: ONLY_GPU.get(key) for key in options if key in ONLY_GPU or key.startswith("vllm_")}


def run_trial(folder: Path, foreign: Path, options: Options | None = None, template: str | None = "chatml") -> Manifest:
    """Imports, validates, and trains for two steps in this process.

    Args:
        template: of the embedded model, which has none, where the imported recipe names none.
    """
    target = folder / "recipe.yaml"
    given = options or Options()
    imported = convert(foreign, Options(**{**vars(given), "target": str(target)}))
    write(imported, foreign, target)
    (step,) = make(load([target, overlay(folder, target, template)])).steps
    file = step.stage_file()
    file.dir.path.mkdir(parents=True)
    stages = importlib.import_module("llmkit.stages.common")
    worker = stages.Worker(file)
    manifest: Manifest = importlib.import_module(f"llmkit.stages.{step.kind}").run(worker)
    write_manifest(file.dir.path, manifest)
    return manifest
