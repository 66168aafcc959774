"""The words of the command line: recipe files and `key=value` overrides, in any order."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from llmkit.errors import Problem, RecipeError
from llmkit.recipe.load import Loaded, load


def load_words(words: Sequence[str]) -> Loaded:
    """Words ending in .yaml or .yml are files, merged left to right; words with `=` override single values."""
    files = [word for word in words if word.endswith((".yaml", ".yml"))]
    overrides = [word for word in words if word not in files and "=" in word]
    strange = [word for word in words if word not in files and word not in overrides]
    problems = [
        Problem(f"command line: {word}", "is neither a recipe file (.yaml) nor key=value", f"did you mean '{word}.yaml'?")
        for word in strange
    ]
    if not files and not strange:
        problems.append(Problem("command line", "no recipe file", "give one that ends in .yaml"))
    if problems:
        raise RecipeError(problems)
    return load(files, overrides)


def console() -> Console:
    """For output; wide where no terminal sets the width."""
    return Console() if sys.stdout.isatty() else Console(width=160)
