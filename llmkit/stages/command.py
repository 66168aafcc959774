"""How commands that run in a process of their own end. Imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable

from llmkit.errors import LlmkitError


def exit_code(command: Callable[[], int | None]) -> int:
    """Runs a command. 2 and one line for what the user can mend, 130 after Ctrl-C, else what it returns, or 0."""
    try:
        return command() or 0
    except LlmkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
