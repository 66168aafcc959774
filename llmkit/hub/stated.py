"""What a run's recipe states about publishing: its stages of kind `push`, else its own `hub` and `ship`."""

from __future__ import annotations

from typing import Any

from llmkit.errors import UserError
from llmkit.recipe.schema import KINDS


def stated(recipe: dict[str, Any], asked: str | None) -> tuple[str | None, dict[str, Any]]:
    """The stage whose model is published (None: the run's last), and fields of a `PushStage`.

    Args:
        recipe: as resolved, and plain.
        asked: name of a stage: one that pushes, or one whose model it is; None where nobody chose.

    Raises:
        UserError: several stages that push could be meant, and they differ.
    """
    pushes = {str(stage["name"]): stage for stage in recipe.get("stages") or [] if stage.get("kind") == "push"}
    if asked in pushes:
        return _of(recipe, pushes[asked])
    found = {name: _of(recipe, stage) for name, stage in pushes.items()}
    meant = {name: each for name, each in found.items() if asked in (None, each[0])}
    if not meant:
        return asked, _fields(recipe, {})
    name, first = next(iter(meant.items()))
    if any(each != first for each in meant.values()):
        listed = ", ".join(f"'{name}' (model of '{model}')" for name, (model, _) in meant.items())
        what = f"several stages of the recipe push, and say different things: {listed}"
        raise UserError("push", what, f"choose one with --stage, such as --stage {name}")
    return first


def _of(recipe: dict[str, Any], stage: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return _model_of(recipe, stage), _fields(recipe, stage)


def _fields(recipe: dict[str, Any], stage: dict[str, Any]) -> dict[str, Any]:
    """As the plan fills them in."""
    own = {key: stage.get(key) or recipe.get(key) or {} for key in ("hub", "ship")}
    return own | {key: bool(stage.get(key)) for key in ("despite_bars", "overwrite")}


def _model_of(recipe: dict[str, Any], stage: dict[str, Any]) -> str:
    """The training stage: those that make no model pass theirs on."""
    by_name = {str(each.get("name")): each for each in recipe["stages"]}
    name = str(stage.get("from", "base"))
    while (each := by_name.get(name)) and each.get("kind") in KINDS and not KINDS[each["kind"]].makes_model:
        name = str(each.get("from", "base"))
    return name
