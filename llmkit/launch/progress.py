"""Progress of a step: a bar on a terminal, else one line per logged step."""

from __future__ import annotations

from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

_PLACE = ("time", "phase", "step", "total")


class Progress(Protocol):
    def update(self, record: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""

    def note(self, text: str) -> None:
        """A line for people."""

    def close(self) -> None: ...


def progress_for(console: Console, name: str) -> Progress:
    return BarProgress(console, name) if console.is_terminal else LineProgress(console, name)


def numbers(record: dict[str, Any]) -> str:
    """`loss 2.314  learning_rate 2e-05`."""
    values = {k: v for k, v in record.items() if k not in _PLACE and isinstance(v, (int, float))}
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    return "  ".join(f"{key} {text}" for key, text in shown.items())


class LineProgress:
    def __init__(self, console: Console, name: str) -> None:
        self.console = console
        self.name = name
        self.phase = ""
        self.shown = 0

    def update(self, record: dict[str, Any]) -> None:
        """Every logged step of training; of other phases about every tenth part, since they log much more often."""
        phase, step, total = record.get("phase", ""), record.get("step", 0), record.get("total", 0) or 0
        if phase != "train" and phase == self.phase and step < total and step < self.shown + total / 10:
            return
        self.phase, self.shown = phase, step
        place = f"{phase} {step}/{total}"
        self.note(f"{self.name}: {place}  {numbers(record)}".rstrip())

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        return


class BarProgress:
    def __init__(self, console: Console, name: str) -> None:
        self.name = name
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            transient=True,
        )
        self.phase = ""
        self.task = self.bars.add_task(f"{name}: starting", total=None, numbers="")
        self.bars.start()

    def update(self, record: dict[str, Any]) -> None:
        phase = str(record.get("phase", ""))
        if phase != self.phase:
            self.bars.remove_task(self.task)
            self.task = self.bars.add_task(f"{self.name}: {phase}", total=None, numbers="")
            self.phase = phase
        total = record.get("total") or None
        self.bars.update(self.task, completed=record.get("step", 0), total=total, numbers=escape(numbers(record)))

    def note(self, text: str) -> None:
        self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.bars.stop()
