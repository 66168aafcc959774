"""Evaluations by lm-eval's tasks that could not run here: found before the first step, which may take days."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmkit.artifacts.shipped import shipped
from llmkit.recipe.schema import OWN_TASKS, EvalSpec, EvaluateStage, Recipe
from llmkit.recipe.source import Loc
from llmkit.recipe.task_files import is_known, named, needs

Found = tuple[Loc, str, str]


def problems_of_tasks(recipe: Recipe) -> Iterator[Found]:
    """As (location in the recipe, what, cure)."""
    yield from _of(("evals",), recipe.evals)
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, EvaluateStage):
            yield from _of(("stages", index, "evals"), stage.evals)


def _of(loc: Loc, evals: list[Any]) -> Iterator[Found]:
    for index, spec in enumerate(evals):
        if isinstance(spec, EvalSpec):
            for where, what, cure in _problems(spec):
                yield (*loc, index, *where), what, cure


def _problems(spec: EvalSpec) -> Iterator[Found]:
    here = f"the current folder is {Path.cwd()}"
    for key in ("data", "include_path"):
        folder = getattr(spec, key)
        if folder is not None and not Path(folder).expanduser().is_dir():
            yield (key,), f"no such folder: '{folder}'", here
    if _is_own(spec):
        return
    if not is_known(spec.task):
        near = difflib.get_close_matches(spec.task, [*OWN_TASKS, *named()], n=3, cutoff=0.6)
        cure = f"did you mean {' or '.join(near)}?" if near else "of a task of yours, name the folder as 'include_path'"
        yield ("task",), f"no task '{spec.task}', here or in lm-eval", cure
        return
    wanted = needs(spec.task)
    if wanted.missing:
        names = " ".join(wanted.missing)
        yield (), f"'{spec.task}' needs packages that are not installed: {names}", f"pip install {names}"
    if wanted.runs_code and not spec.allow_code_execution:
        what = f"'{spec.task}' runs programs that the model wrote"
        yield (), what, "say 'allow_code_execution: true' to have it run in llmkit's sandbox"


def _is_own(spec: EvalSpec) -> bool:
    """Whether a task file of llmkit's or the user's has the name: it goes before lm-eval's."""
    names = re.compile(rf"^(?:task|group|tag):\s*{re.escape(spec.task)}\s*$", re.MULTILINE)
    folders = [shipped("evals"), *([Path(spec.include_path).expanduser()] if spec.include_path else [])]
    files = (file for folder in folders for file in folder.rglob("*.yaml"))
    return any(names.search(file.read_text(encoding="utf-8", errors="replace")) for file in files)
