"""How commands that run in a process of their own end. Imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from llmkit.errors import LlmkitError
from llmkit.stages import started

Given = ParamSpec("Given")


def as_command(main: Callable[Given, int | None]) -> Callable[Given, int]:
    """The exit code of a command: 2 and one line for what the user can mend, 130 after Ctrl-C, else what it returns."""

    @wraps(main)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> int:
        started()
        try:
            return main(*args, **kwargs) or 0
        except LlmkitError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return 130

    return run
