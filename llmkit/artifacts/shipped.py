"""Files that travel with llmkit: recipes, chat templates, evals, and folders inside Python packages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped(folder: str) -> Path:
    """`recipes`, `chat_templates` or `evals`: at the root of a checkout, inside the package when installed."""
    beside = _PACKAGE.parent / folder
    return (
        beside if (_PACKAGE.parent / "pyproject.toml").is_file() and beside.is_dir() else _PACKAGE / "shipped" / folder
    )


def in_package(reference: str) -> Path | None:
    """The path that `package.module:folder` names, or None if `reference` is not of that form."""
    package, colon, inside = reference.partition(":")
    if not colon or not package.replace(".", "").replace("_", "").isalnum():
        return None
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / inside
