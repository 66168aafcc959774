"""The language of question templates: fields in braces, and what is wrong with a template.

A field is a path into plain data, in braces: `{name.common}`, `{capital}`, `{capital[0]}`, `{currencies[*].name}`.
`[*]` is every value of a list or an object. Nothing is evaluated: a path only ever picks keys of objects and places of
lists. `{{` and `}}` are braces themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache

from llmkit.recipe.knowledge import TemplateSpec

Path = tuple[str | int | None, ...]
"""Keys, places, and None for every value."""


_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_STEP = re.compile(r"(?:\A|\.)([^.\[\]]+)|\[(\d{1,9}|\*)\]")


def check_templates(templates: Sequence[TemplateSpec]) -> list[str]:
    """What is wrong with templates, each with its place."""
    return [f"templates[{n}].{field}: {what}" for n, spec in enumerate(templates) for field, what in problems(spec)]


@lru_cache(maxsize=1024)
def parse_path(path: str) -> Path:
    """`a.b[0][*]` -> ("a", "b", 0, None). Raises ValueError if it is not of that form."""
    steps: list[str | int | None] = []
    place = 0
    while place < len(path):
        match = _STEP.match(path, place)
        if match is None:
            break
        key, index = match.groups()
        steps.append(key if key is not None else None if index == "*" else int(index))
        place = match.end()
    if place < len(path) or not steps or not isinstance(steps[0], str):
        raise ValueError(f"'{{{path}}}' is no field: write {{name}}, {{name.part}}, {{name[0]}} or {{name[*].part}}")
    return tuple(steps)


def wordings(template: TemplateSpec) -> list[str]:
    return [template.question] if isinstance(template.question, str) else template.question


def answers(template: TemplateSpec) -> list[str]:
    return [template.answers] if isinstance(template.answers, str) else template.answers


@lru_cache(maxsize=1024)
def parts(text: str) -> tuple[tuple[str, str | None], ...]:
    """A template as (plain text, None) and ("", path). Raises ValueError if it is malformed."""
    found: list[tuple[str, str | None]] = []
    end = 0
    for match in _FIELD.finditer(text):
        found.append((text[end : match.start()], None))
        end = match.end()
        if match[0] in ("{{", "}}"):
            found.append((match[0][0], None))
        elif match[1] is None:
            raise ValueError(f"'{text}' has an unpaired {match[0]}; a brace itself is written {match[0] * 2}")
        else:
            parse_path(match[1])
            found.append(("", match[1]))
    return (*found, (text[end:], None))


def problems(template: TemplateSpec) -> Iterator[tuple[str, str]]:
    """(field of the template, what is wrong with it): braces, paths, patterns, groups that a pattern does not have."""
    asked = wordings(template)
    questions = {"question" if len(asked) == 1 else f"question[{place}]": text for place, text in enumerate(asked)}
    texts = questions | {"entity": template.entity}
    texts |= {f"answers[{place}]": text for place, text in enumerate(answers(template))}
    groups, problem = _groups(template.match)
    if problem:
        yield "match", problem
    for field, listed in (("question", asked), ("answers", answers(template))):
        if not listed:
            yield field, "is empty"
    for field, text in texts.items():
        try:
            paths = [path for _, path in parts(text) if path is not None]
        except ValueError as error:
            yield field, str(error)
            continue
        if field in questions and not paths:
            yield field, f"'{text}' names no field, so every row would ask the same"
        for path in paths:
            if groups and path not in groups:
                near = get_close_matches(path, groups, n=1)
                hint = f"; did you mean {{{near[0]}}}?" if near else f" ({', '.join(groups)})"
                yield field, f"{{{path}}} is no named group of 'match'{hint}"


def _groups(pattern: str | None) -> tuple[list[str], str]:
    """The named groups of a pattern, and what is wrong with it."""
    if pattern is None:
        return [], ""
    try:
        groups = list(re.compile(pattern).groupindex)
    except (re.error, OverflowError, RecursionError) as error:
        return [], f"'{pattern}' is no regular expression ({error})"
    return groups, "" if groups else f"'{pattern}' has no named groups, as in (?P<name>...)"
