"""The rewards that llmkit ships, and their options: read from `llmkit/rewards` without importing it.

A reward `x` is a file `x.py` there with a function `make_x`, whose keyword arguments are its options.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from llmkit.recipe.practice import RewardSpec
from llmkit.recipe.reward_values import free_tokens, out_of_range

ROOM = Path(__file__).resolve().parent.parent / "rewards"
GIVEN = ("is_correct", "is_refusal")
"""Arguments that the stage gives, not the recipe: how an answer is judged."""
PASSED = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""Arguments that TRL gives to every reward function at each call."""
_NUMBERS: dict[str, tuple[type, ...]] = {"float": (int, float), "int": (int,), "str": (str,), "bool": (bool,)}


@dataclass(frozen=True)
class Option:
    """One option of a reward. `type` is Python's, `values` says it in words."""

    type: str
    values: str
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Described:
    """One reward, for people: `summary` is the first line of what its maker says of it."""

    name: str
    summary: str
    options: dict[str, Option]
    columns: tuple[str, ...]
    correctness: bool


@cache
def names() -> tuple[str, ...]:
    """All rewards that llmkit ships, in the order of the alphabet."""
    stems = sorted(path.stem for path in ROOM.glob("*.py"))
    return tuple(stem for stem in stems if f"def make_{stem}(" in (ROOM / f"{stem}.py").read_text(encoding="utf-8"))


def options(name: str) -> dict[str, Option]:
    """The options of a reward that llmkit ships."""
    return _read(name).options


def describe() -> list[Described]:
    """Every reward that llmkit ships."""
    return [_read(name) for name in names()]


def check(spec: RewardSpec) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(key within the spec, what, cure) for everything that is wrong with a reward's name and options. A reward of the
    user's own is only seen when it is imported."""
    if spec.name is None:
        clash = sorted(set(spec.args) & set(PASSED))
        yield from ((("args", key), "is what every reward function gets", "choose another name") for key in clash)
        return
    if spec.name not in names():
        yield ("name",), f"no reward '{spec.name}'", _near(spec.name, names()) or f"have: {', '.join(names())}"
        return
    found = list(_unfit(spec.name, spec.args))
    yield from found
    if not found:
        yield from ((("args", key), what, cure) for key, what, cure in out_of_range(spec.name, _filled(spec)))


def costs_nothing(spec: RewardSpec) -> int | None:
    """Up to how many tokens an answer costs nothing, of a reward that is right and penalises length."""
    return free_tokens(spec.name, _filled(spec)) if spec.name in names() and not any(check(spec)) else None


def _filled(spec: RewardSpec) -> dict[str, Any]:
    """The options of a reward that llmkit ships, its defaults included."""
    return {key: option.default for key, option in options(str(spec.name)).items()} | spec.args


def _unfit(name: str, args: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Options that the reward does not have, of another type, or missing."""
    known = options(name)
    for key, value in args.items():
        if key not in known:
            cure = _near(key, known) or (f"have: {', '.join(known)}" if known else "it has none")
            yield ("args", key), f"unknown option of the reward '{name}'", cure
        elif not _fits(value, _parsed(known[key].type)):
            yield ("args", key), f"is {value!r}", f"'{name}' takes {known[key].values}"
    for key, option in known.items():
        if option.required and key not in args:
            yield ("args",), f"the reward '{name}' needs '{key}'", f"{key}: {option.values}"


def _near(word: str, words: Any) -> str:
    near = get_close_matches(word, list(words), n=1)
    return f"did you mean '{near[0]}'?" if near else ""


@cache
def _read(name: str) -> Described:
    tree = ast.parse((ROOM / f"{name}.py").read_text(encoding="utf-8"))
    maker = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == f"make_{name}")
    summary = (ast.get_docstring(maker) or "").split("\n\n")[0]
    columns, correctness = _constant(tree, "COLUMNS"), _constant(tree, "CORRECTNESS")
    return Described(name, " ".join(summary.split()), dict(_options(maker)), tuple(columns), bool(correctness))


def _options(maker: ast.FunctionDef) -> Iterator[tuple[str, Option]]:
    plain, only = maker.args.args, maker.args.kwonlyargs
    defaults = [*[None] * (len(plain) - len(maker.args.defaults)), *maker.args.defaults, *maker.args.kw_defaults]
    for argument, default in zip([*plain, *only], defaults, strict=True):
        if argument.arg not in GIVEN:
            assert argument.annotation is not None
            value = None if default is None else ast.literal_eval(default)
            kind = ast.unparse(argument.annotation)
            yield argument.arg, Option(kind, _words(argument.annotation), default is None, value)


def _constant(tree: ast.Module, name: str) -> Any:
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            assert node.value is not None
            return ast.literal_eval(node.value)
    raise LookupError(f"{name} is not set")


def _fits(value: Any, annotation: ast.expr) -> bool:
    """Whether a value is of a type that an option's annotation may name."""
    if isinstance(annotation, ast.BinOp):
        return _fits(value, annotation.left) or _fits(value, annotation.right)
    if isinstance(annotation, ast.Constant):
        return value is None and annotation.value is None
    if isinstance(annotation, ast.Name):
        return isinstance(value, _NUMBERS[annotation.id]) and isinstance(value, bool) == (annotation.id == "bool")
    assert isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name)
    inner = annotation.slice
    if annotation.value.id == "Literal":
        return value in _literals(inner)
    assert annotation.value.id == "Sequence"
    return isinstance(value, (list, tuple)) and all(_fits(each, inner) for each in value)


def _words(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.BinOp):
        return f"{_words(annotation.left)}, or {_words(annotation.right)}"
    if isinstance(annotation, ast.Constant):
        return "null"
    if isinstance(annotation, ast.Name):
        return {"float": "a number", "int": "a whole number", "str": "a text", "bool": "true or false"}[annotation.id]
    assert isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name)
    if annotation.value.id == "Sequence":
        return f"a list, each {_words(annotation.slice)}"
    return " or ".join(map(str, _literals(annotation.slice)))


def _literals(node: ast.expr) -> list[Any]:
    return [ast.literal_eval(each) for each in (node.elts if isinstance(node, ast.Tuple) else [node])]


@cache
def _parsed(kind: str) -> ast.expr:
    return ast.parse(kind, mode="eval").body
