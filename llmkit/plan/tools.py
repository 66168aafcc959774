"""Tools that could not be opened or called, and templates without a place for them: found before the first step."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from llmkit.artifacts.index import read_index_manifest
from llmkit.errors import UserError
from llmkit.plan.files import template_file
from llmkit.recipe import reads
from llmkit.recipe.practice import ProblemsSpec
from llmkit.recipe.schema import Evals, EvaluateStage, Recipe
from llmkit.recipe.source import Loc
from llmkit.recipe.stages import PretrainStage, TrainStage
from llmkit.recipe.tools import FunctionSpec, McpSpec, SearchSpec, ToolSpec, called

Found = tuple[Loc, str, str]
_CALL, _SEARCH = "<tool_call>", "<|search_start|>"
_THINK, _THOUGHT = "<think>", "</think>"
_WITH_TOKENS = ("search", "python")
"""Tools of a template that has tokens for each."""


def problems_of_tools(recipe: Recipe) -> Iterator[Found]:
    """As (location in the recipe, what, cure). Indexes that a stage is to make are no problem."""
    learned = any(_is_chat(stage) for stage in recipe.stages)
    yield from _of_lists((), list(reads.eval_tools(recipe.evals)), recipe if learned else None)
    yield from _of_budgets((), recipe.evals, recipe if learned else None)
    for index, stage in enumerate(recipe.stages):
        own = recipe if _learns(recipe, stage.name) else None
        yield from _of_lists(("stages", index), list(reads.tools(stage)), own)
        yield from _of_budgets(("stages", index), stage.evals if isinstance(stage, EvaluateStage) else [], own)


def _is_chat(stage: object) -> bool:
    """Whether a stage teaches the recipe's chat template."""
    return isinstance(stage, TrainStage) and not isinstance(stage, PretrainStage)


def _learns(recipe: Recipe, name: str) -> bool:
    """Whether the model of a stage has the recipe's template, and not what the base has."""
    by_name = {stage.name: stage for stage in recipe.stages}
    while name in by_name:
        if _is_chat(by_name[name]):
            return True
        name = by_name[name].from_
    return False


def _of_lists(at: Loc, tools: Sequence[tuple[Loc, ToolSpec]], recipe: Recipe | None) -> Iterator[Found]:
    """Args: recipe: whose template the model has; None: another one."""
    lists: dict[Loc, list[str]] = defaultdict(list)
    for loc, spec in tools:
        yield from (((*at, *loc, *key), what, cure) for key, what, cure in _unopened(spec))
        name, have = called(spec), lists[loc[:-1]]
        if name is not None and name in have:
            yield (*at, *loc), f"two tools are called '{name}'", "leave one of them out"
        if recipe is not None and loc[0] != "lookup":
            yield from (((*at, *loc), what, cure) for what, cure in _unplaced(recipe, name, is_first=not have))
        have.append(name or "")


def _unopened(spec: ToolSpec) -> Iterator[Found]:
    """What keeps a tool from being opened; locations begin at it."""
    if isinstance(spec, SearchSpec) and spec.index is not None:
        yield from _unread(Path(spec.index).expanduser(), spec.digest)
    if isinstance(spec, FunctionSpec) and not _is_module(module := spec.path.partition(":")[0]):
        cure = f"a function is named package.module:function, and the current folder is {Path.cwd()}"
        yield ("path",), f"no module '{module}'", cure
    if isinstance(spec, McpSpec):
        yield from _unstarted(spec)


def _unread(folder: Path, digest: str | None) -> Iterator[Found]:
    key = "index"
    try:
        manifest, key = read_index_manifest(folder), "digest"
        manifest.check_digest(folder, digest)
    except UserError as error:
        yield from (((key,), f"'{each.where}' {each.what}", each.cure) for each in error.problems)


def _unstarted(spec: McpSpec) -> Iterator[Found]:
    if find_spec("mcp") is None:
        yield ("mcp",), "needs the package 'mcp'", "pip install 'llmkit[mcp]'"
    if not isinstance(spec.mcp, str) and shutil.which(spec.mcp[0]) is None:
        yield ("mcp",), f"no such command: '{spec.mcp[0]}'", "install it, or give its path"
    for key, names in (("env", spec.env), ("headers_env", list(spec.headers_env.values()))):
        for name in names:
            if name not in os.environ:
                yield (key,), f"the environment has no {name}", "set it, or leave it out"


def _is_module(name: str) -> bool:
    """Whether a module is there, without importing it or its package; also in the current folder, as workers see it."""
    top, *rest = name.split(".")
    package = _package(top)
    if package is None:
        return False
    folders = [Path(folder) for folder in package.submodule_search_locations or []]
    known = [folder for folder in folders if folder.is_dir()]
    if not rest or not known:  # a module may put others into sys.modules itself, and finders may know no folders
        return True
    last = [folder.joinpath(*rest[:-1]) for folder in known]
    return any((folder / rest[-1]).is_dir() or list(folder.glob(f"{rest[-1]}.*")) for folder in last)


def _package(top: str) -> ModuleSpec | None:
    return find_spec(top) or PathFinder.find_spec(top, [str(Path.cwd())])


def _unplaced(recipe: Recipe, name: str | None, *, is_first: bool) -> Iterator[tuple[str, str]]:
    """What keeps a tool from being called by the recipe's template; what is so for all tools is told of the first.

    Args:
        name: None where only a server knows it.
    """
    template, text = recipe.model.chat_template, _template(recipe)
    if text is None or _CALL in text:
        return
    if _SEARCH not in text and is_first:
        yield f"the chat template '{template}' has no place for tool calls", "use chatml_tools or chatml_search"
    elif _SEARCH in text and name is not None and name not in _WITH_TOKENS:
        what = f"the chat template '{template}' has no tokens for the tool '{name}'"
        yield what, f"it knows {' and '.join(_WITH_TOKENS)}; use chatml_tools for others"


def _of_budgets(at: Loc, evals: Evals, recipe: Recipe | None) -> Iterator[Found]:
    text = _template(recipe) if recipe is not None else None
    if recipe is None or text is None or _THINK in text or _THOUGHT in text:
        return
    what = f"the chat template '{recipe.model.chat_template}' has no span of reasoning ({_THINK})"
    for place, spec in enumerate(evals):
        if isinstance(spec, ProblemsSpec) and spec.thinking_budgets:
            cure = "use one such as chatml_think, or leave it out"
            yield (*at, "evals", place, "thinking_budgets"), what, cure


def _template(recipe: Recipe) -> str | None:
    """The text of the recipe's template; None where it sets none, or there is no such file."""
    path = template_file(recipe.model.chat_template) if recipe.model.chat_template is not None else None
    return path.read_text(encoding="utf-8", errors="replace") if path is not None and path.is_file() else None
