"""Recipe files and overlays to a checked `Recipe`, with every problem at once.

    load(["recipe.yaml", "overlay.yaml"], ["run.seed=1"]) -> Loaded

A problem reads `file:line: path: what is wrong; did you mean ...`.
"""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from llmkit.errors import Problem, RecipeError
from llmkit.recipe.checks import check, check_trainers
from llmkit.recipe.planted import planted
from llmkit.recipe.schema import Recipe
from llmkit.recipe.source import Loc, Source, merge, read_yaml, set_value

_OVERRIDE = re.compile(r"[\w.-]+=")


@dataclass(frozen=True)
class Loaded:
    """A recipe and the places where its values were written."""

    recipe: Recipe
    source: Source


def load(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> Loaded:
    """Read, merge left to right, apply `key=value` words, check. Raises RecipeError with all problems."""
    source = reduce(merge, [read_yaml(Path(file)) for file in files])
    source = reduce(set_value, overrides, source)
    if hidden := [problem_at(source, loc, what, cure) for loc, what, cure in planted(source.data)]:
        raise RecipeError(hidden)
    try:
        recipe = Recipe.model_validate(source.data)
    except ValidationError as error:
        problems = [_problem(item, source) for item in error.errors()]
        problems += [problem_at(source, loc, what, cure) for loc, what, cure in check_trainers(source.data)]
        raise RecipeError(_in_order(problems)) from None
    problems = [problem_at(source, loc, what, cure) for loc, what, cure in check(recipe)]
    if problems:
        raise RecipeError(_in_order(problems))
    return Loaded(recipe, source)


def load_words(words: Sequence[str]) -> Loaded:
    """`key.of.it=value` overrides a single value; what else ends in .yaml or .yml is a file, merged in order."""
    overrides = [word for word in words if _OVERRIDE.match(word)]
    files = [word for word in words if word.endswith((".yaml", ".yml")) and word not in overrides]
    strange = [word for word in words if word not in files and word not in overrides]
    what = "is neither a recipe file (.yaml) nor key=value"
    problems = [Problem(f"command line: {word}", what, f"did you mean '{word}.yaml'?") for word in strange]
    if not files and not strange:
        problems.append(Problem("command line", "no recipe file", "give one that ends in .yaml"))
    if problems:
        raise RecipeError(problems)
    return load(files, overrides)


def problem_at(source: Source, loc: Loc, what: str, cure: str = "") -> Problem:
    """A problem whose place is `file:line: path.of.the.key`."""
    return Problem(_place(source, loc), what, cure)


def _place(source: Source, loc: Loc) -> str:
    path = ".".join(str(part) for part in loc)
    return f"{source.where(loc)}: {path}" if path else source.where(loc)


def _in_order(problems: list[Problem]) -> list[Problem]:
    def line(problem: Problem) -> tuple[str, int]:
        file, _, rest = problem.where.partition(":")
        number = rest.partition(":")[0]
        return file, int(number) if number.isdigit() else 0

    return sorted(problems, key=line)


def _problem(item: Any, source: Source) -> Problem:
    loc, owner = _resolve(item["loc"])
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        names = _names(owner) if owner else []
        near = get_close_matches(str(loc[-1]), names, n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(names)}"
        return problem_at(source, loc, "unknown key", cure)
    if kind == "missing":
        return problem_at(source, loc, "is required")
    if kind == "union_tag_not_found":
        return problem_at(source, loc, "a stage needs 'kind'")
    if kind == "union_tag_invalid":
        known = [tag.strip("' ") for tag in item["ctx"]["expected_tags"].split(",")]
        near = get_close_matches(str(item["ctx"]["tag"]), known, n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        return problem_at(source, (*loc, "kind"), f"unknown kind '{item['ctx']['tag']}'", cure)
    if kind == "literal_error":
        return problem_at(source, loc, f"must be {item['ctx']['expected']}, got {given!r}")
    if kind == "string_pattern_mismatch":
        return problem_at(source, loc, f"{given!r} must be lower-case letters, digits, '.', '-' and '_'")
    what = item["msg"].removeprefix("Value error, ")
    show = not isinstance(given, (dict, list)) and kind != "value_error"
    return problem_at(source, loc, f"{what[0].lower()}{what[1:]}" + (f", got {given!r}" if show else ""))


def _resolve(parts: tuple[str | int, ...]) -> tuple[Loc, type[BaseModel] | None]:
    """pydantic's location without its union tags, and the model that owns the last key."""
    loc: list[str | int] = []
    owner: Any = Recipe
    for index, part in enumerate(parts):
        members = _models(owner)
        models, tagged = [model for _, model in members], [model for tag, model in members if tag == part]
        if tagged and len(models) > 1:
            owner = tagged[0]
            continue
        loc.append(part)
        last = index == len(parts) - 1
        if last:
            return tuple(loc), models[0] if models else None
        owner = _inside(models[0], part) if models and isinstance(part, str) else _item(owner)
    return tuple(loc), None


def _models(annotation: Any, tag: str | None = None) -> list[tuple[str | None, type[BaseModel]]]:
    """The members of an annotation, each with its union tag: a `Tag`, else the stage's kind."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(tag or _kind(annotation), annotation)]
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return _models(inner, next((mark.tag for mark in marks if isinstance(mark, Tag)), tag))
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for arg in get_args(annotation) for member in _models(arg, tag)]
    return []


def _kind(model: type[BaseModel]) -> str | None:
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation)[0] if kind and get_args(kind.annotation) else None


def _inside(model: type[BaseModel], key: str) -> Any:
    for name, spec in model.model_fields.items():
        if key in (name, spec.alias):
            return spec.annotation
    return None


def _item(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_args(annotation)[-1] if get_origin(annotation) in (list, dict) else None


def _names(model: type[BaseModel]) -> list[str]:
    return [spec.alias or name for name, spec in model.model_fields.items()]
