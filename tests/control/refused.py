"""What a recipe that is refused is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmkit.errors import RecipeError
from llmkit.plan.make import make
from llmkit.recipe.load import load


def said(recipe: Path, *words: str) -> str:
    """Args: words: `key=value` beside it."""
    with pytest.raises(RecipeError) as caught:
        make(load([str(recipe)], list(words)))
    return str(caught.value)


def said_of_change(recipe: Path, old: str, new: str) -> str:
    """Of the recipe with other words in place of some that it has."""
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    return said(recipe)
