"""The words of the command line: recipe files and `key=value` overrides, in any order."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from rich.console import Console

from llmkit.errors import Problem, RecipeError
from llmkit.recipe.load import Loaded, load

_OVERRIDE = re.compile(r"[\w.-]+=")


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


def console() -> Console:
    """For output; wide where no terminal sets the width."""
    return Console() if sys.stdout.isatty() else Console(width=160)
