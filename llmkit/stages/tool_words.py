"""The options of commands that name tools: `--tools FILE` and `--tool python --tool search:INDEX`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llmkit.artifacts.rundir import RunDir
from llmkit.errors import Problem, RecipeError, UserError
from llmkit.recipe.source import Source, read_yaml
from llmkit.recipe.tools import Tools, ToolSpec
from llmkit.tools.toolbox import Toolbox, open_tools

_TOOLS: TypeAdapter[list[ToolSpec]] = TypeAdapter(Tools)


def tools_of(args: argparse.Namespace) -> Toolbox:
    """The tools that both options name, opened; a search's `from` is a stage of the model's run. Raises UserError, each
    with its place."""
    named = _of_file(args.tools) if args.tools is not None else []
    return open_tools([*named, *_of_words(args.tool)], _stages_beside(Path(args.target).expanduser()))


def _stages_beside(target: Path) -> dict[str, Path]:
    """Folders of the finished stages of a run, by their names. Args: target: the run, a stage of it or its model."""
    run = next((run for run in map(RunDir, (target, *target.parents[:2])) if run.recipe.is_file()), None)
    return {stage.name: stage.path for stage in run.stages() if stage.manifest() is not None} if run else {}


def _of_file(path: Path) -> list[ToolSpec]:
    source = read_yaml(path.expanduser())
    if list(source.data) != ["tools"]:
        raise UserError(str(path), f"holds {', '.join(source.data) or 'nothing'}", "give one list, `tools:`")
    return _valid(source.data["tools"], source)


def _of_words(words: Sequence[str]) -> list[ToolSpec]:
    items: list[Any] = []
    for word in words:
        name, _, rest = word.partition(":")
        if name == "search" and not rest:
            raise UserError("--tool search", "needs an index", "give search:FOLDER, made by `llmkit index`")
        items.append({"name": name, "index": rest} if name == "search" else word)
    return _valid(items, Source(None, {(): "--tool"}))


def _valid(items: Any, source: Source) -> list[ToolSpec]:
    try:
        return _TOOLS.validate_python(items)
    except ValidationError as error:
        raise RecipeError([_problem(each, source) for each in error.errors()]) from None


def _problem(error: Any, source: Source) -> Problem:
    where = [source.where(("tools", *error["loc"])), *map(str, error["loc"][2:])]
    return Problem(" ".join(where), error["msg"].removeprefix("Value error, "))
