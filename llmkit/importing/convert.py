"""A foreign file to a recipe: which program wrote it, its converter, and the account.

convert(Path("config_full.yaml"), Options()) -> Imported
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llmkit.artifacts.shipped import shipped
from llmkit.errors import Problem, RecipeError
from llmkit.importing import axolotl, llamafactory, trl
from llmkit.importing.draft import Draft, Entry, Options
from llmkit.importing.foreign import Foreign, read_foreign

CONVERTERS: dict[str, Callable[[Draft, str], None]] = {
    "alignment-handbook": trl.convert,
    "open-r1": trl.convert,
    "trl": trl.convert,
    "axolotl": axolotl.convert,
    "llamafactory": llamafactory.convert,
}
_OPEN_R1 = {"benchmarks", "callbacks", "system_prompt", "dataset_prompt_column", "code_language", "num_processes"}
_RENDERED = ("sft", "dpo", "reward")
"""Kinds that refuse conversations without a chat template; practice asks a model without one in plain text."""
_TEMPLATES = ("chat_template", "chat_template_jinja", "chat_template_path", "template")
"""Keys by which the programs name a template."""
_LLAMAFACTORY = {"finetuning_type", "template", "cutoff_len", "dataset_dir", "lora_rank", "pref_beta", "plot_loss"}


@dataclass(frozen=True)
class Imported:
    """A recipe as plain data in the order in which it is written, and what became of every key."""

    system: str
    recipe: dict[str, Any]
    entries: list[Entry]
    added: list[Entry]
    files: dict[str, str]
    """Files beside the recipe: name -> text."""
    notes: list[Entry]
    """Places of the recipe that a person should look at before it runs, and why."""


def convert(path: Path, options: Options, system: str | None = None) -> Imported:
    """Raises RecipeError with all problems: a file that is no such recipe, unknown keys, stages without counterpart."""
    foreign = read_foreign(path)
    system = _known(system) if system else detect(foreign)
    draft = Draft(foreign, options)
    CONVERTERS[system](draft, system)
    if draft.problems:
        raise RecipeError(draft.problems)
    _note_template(draft)
    stage = {"name": draft.kind, "kind": draft.kind, **{k: v for k, v in draft.stage.items() if k != "kind"}}
    recipe = {"run": draft.run, "model": draft.model, "stages": [_ordered(stage)]}
    order = {loc: index for index, loc in enumerate(foreign.lines)}
    entries = sorted(draft.entries, key=lambda entry: _line(order, entry.key))
    return Imported(system, recipe, entries, draft.added, draft.files, draft.notes)


def _note_template(draft: Draft) -> None:
    """Conversations need a template. Which models are base models, and have none, their names do not tell."""
    chats = any(source.get("format") != "text" for source in draft.stage["data"])
    named = "chat_template" in draft.model or any(draft.get(key) is not None for key in _TEMPLATES)
    if draft.kind not in _RENDERED or not chats or named:
        return
    have = ", ".join(sorted(path.stem for path in shipped("chat_templates").glob("*.jinja")))
    why = f"not set: {draft.model['name_or_path']} may have no chat template of its own, as base models have none"
    draft.note("model.chat_template", f"{why}; if so, name one of {have}, or a .jinja file")


def _ordered(stage: dict[str, Any]) -> dict[str, Any]:
    """The stage's keys in the order in which llmkit's own recipes have them."""
    first = [
        "name",
        "kind",
        "data",
        "heldout",
        "rewards",
        "launch",
        "global_batch_size",
        "max_truncated",
        "peft",
        "loss",
    ]
    return {key: stage[key] for key in [*first, *(k for k in stage if k not in first)] if key in stage}


def _line(order: dict[Any, int], key: str) -> int:
    top = key.replace("[", ".").partition(".")[0]
    return order.get((top,), len(order))


def detect(foreign: Foreign) -> str:
    """The program that a file is for, by its keys. Raises RecipeError where that cannot be told."""
    keys = set(foreign.data)
    if {"run", "stages"} <= keys:
        what = "is a recipe of llmkit already"
        raise RecipeError([Problem(str(foreign.path), what, f"llmkit validate {foreign.path}")])
    if "base_model" in keys:
        return "axolotl"
    if ("stage" in keys and keys & _LLAMAFACTORY) or {"dataset", "template"} <= keys:
        return "llamafactory"
    if "dataset_mixer" in keys or "dataset_mixture" in keys:
        return "open-r1" if keys & _OPEN_R1 else "alignment-handbook"
    if "model_name_or_path" in keys:
        return "open-r1" if keys & _OPEN_R1 else "trl"
    what = "none of the programs that llmkit knows writes such keys"
    raise RecipeError([Problem(str(foreign.path), what, f"say which it is: --from, one of {', '.join(CONVERTERS)}")])


def _known(system: str) -> str:
    name = system.lower().replace("_", "-")
    name = {"llama-factory": "llamafactory", "handbook": "alignment-handbook", "openr1": "open-r1"}.get(name, name)
    if name not in CONVERTERS:
        near = get_close_matches(name, CONVERTERS, n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"have: {', '.join(CONVERTERS)}"
        raise RecipeError([Problem(f"--from {system}", "llmkit cannot import its recipes", cure)])
    return name
