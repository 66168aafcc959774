"""A conversation on a terminal: text as it comes, reasoning folded, calls of tools and their results."""

from __future__ import annotations

import sys

from rich.console import Console

from llmkit.chat.pieces import Thought
from llmkit.chat.turn import BadCall, Call
from llmkit.tools.tool import Result
from llmkit.visible import is_control, visible

_LINES, _CHARS = 12, 1200
"""Of a call or a result that are shown."""


class Screen:
    """Text goes to standard output; all else, dim, to the console.

    Attributes:
        shows_thoughts: as they come, in place of one line.
    """

    def __init__(self, console: Console, *, shows_thoughts: bool = False) -> None:
        self._console, self.shows_thoughts = console, shows_thoughts
        self._thought: list[str] = []
        self._is_open = self._waits = False
        self.thought = ""

    def piece(self, piece: str, num_thought: int) -> None:
        """Args: num_thought: tokens of reasoning so far."""
        if isinstance(piece, Thought):
            self._think(piece)
            return
        self.fold(num_thought)
        self._write(printable(piece))

    def fold(self, num_thought: int) -> None:
        """The reasoning of this turn is at its end."""
        if not self._thought:
            return
        self.thought, self._thought = "".join(self._thought), []
        if self.shows_thoughts:
            self._console.print("\n")
        else:
            self._wait(False)
            self.say(f"thought for {num_thought} tokens (/think shows it)")

    def call(self, call: Call | BadCall) -> None:
        """Before it is made."""
        self.end_line()
        text = call.text if isinstance(call, BadCall) else _arguments(call)
        name = "unreadable call" if isinstance(call, BadCall) else visible(call.name)
        self.say(f"> {name}  {_short(text)}")

    def result(self, result: Result) -> None:
        mark = "failed, " if result.failed else ""
        self.say(f"< {_short(result.text)}  [{mark}{result.seconds:.2f} s]")

    def say(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False)

    def end(self, *, stopped: bool = False) -> None:
        self._wait(False)
        self._thought = []
        self._write(" [stopped]\n" if stopped else "\n")
        self._is_open = False

    def end_line(self) -> None:
        if self._is_open:
            self.end()

    def _think(self, piece: str) -> None:
        self._thought.append(piece)
        if self.shows_thoughts:
            self._console.print(printable(piece), style="dim", markup=False, end="")
        else:
            self._wait(True)

    def _wait(self, waits: bool) -> None:
        """A line that is wiped out again, where it can be."""
        if waits != self._waits and self._console.is_terminal:
            self._console.file.write("\x1b[2mthinking ...\x1b[0m" if waits else "\r\x1b[K")
            self._console.file.flush()
        self._waits = waits

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self._is_open = True


def printable(text: str) -> str:
    """Without control characters."""
    return "".join(char for char in text if not is_control(char))


def _arguments(call: Call) -> str:
    values = list(call.arguments.values())
    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    return ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())


def _short(text: str) -> str:
    """Behind its first line indented, so that no line of it looks like one of ours."""
    lines = visible(text[:_CHARS]).splitlines() or [""]
    shown = "\n  ".join(lines[:_LINES])
    is_cut = len(lines) > _LINES or len(text) > _CHARS
    return f"{shown}\n  ... ({len(text)} characters)" if is_cut else shown
