"""Runs what a page shows: files that it gives a title, and commands behind them, in this process."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

import llmkit.cli.worker
from llmkit.cli.main import main
from llmkit.launch.worker import Workers

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Example:
    """Files that stand in front of a `console` block under one heading, and that block's lines."""

    heading: str
    files: dict[str, str]
    lines: tuple[str, ...]


def examples(text: str) -> Iterator[Example]:
    for section in re.split(r"^(?=##+ )", text, flags=re.M):
        files: dict[str, str] = {}
        for kind, title, body in BLOCK.findall(section):
            if title:
                files[title] = body
            if kind == "console":
                yield Example(section.splitlines()[0].strip("# "), dict(files), tuple(body.splitlines()))


def outputs(text: str) -> Iterator[tuple[str, list[str]]]:
    """Commands with what stands behind them: a `bash` block of one line, then a `text` block."""
    for command, output in re.findall(r"^```bash\n([^\n]+)\n```\n\n```text\n(.*?)^```$", text, flags=re.M | re.S):
        yield command, output.splitlines()


def printed(command: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> list[str]:
    """The lines that a command gives, run in this process: notices first."""
    monkeypatch.setattr(llmkit.cli.worker, "become", _become)
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert not ended.value.code, told.err
    return [line.rstrip() for line in (told.err + told.out).rstrip().splitlines()]


def said(example: Example, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> list[str]:
    """The lines that the commands of an example really give: each command, and what it writes to stderr."""
    for name, text in example.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(llmkit.cli.worker, "become", _become)
    monkeypatch.setattr(Workers, "run", _run_worker)
    lines: list[str] = []
    for line in (each for each in example.lines if each.startswith("$ ")):
        monkeypatch.setattr(sys, "argv", shlex.split(line[2:]))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2, line
        told = capsys.readouterr().err.replace(f"{folder}{os.sep}", "").replace(str(folder), "/home/me").splitlines()
        lines += [line, *(each for each in told if each.startswith(("error: ", " ", "log: ", "go on with: ")))]
    return lines


def _become(module: str, words: Sequence[str]) -> None:
    """What `llmkit.cli.worker.become` does, without leaving this process."""
    sys.exit(importlib.import_module(f"llmkit.stages.{module}").main(list(words)))


def _run_worker(_workers: Workers, step: Any, progress: Any, verbose: bool) -> int:
    """The worker of a stage in this process: what it raises is left where the launcher looks for it."""
    from llmkit.errors import UserError
    from llmkit.stages import common

    stage = importlib.import_module(f"llmkit.stages.{step.kind}")
    worker = common.Worker(step.stage_file())
    with pytest.raises(UserError) as raised:
        stage.run(worker)
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(StringIO()):  # a worker's goes to its log
        patch.setattr(os, "_exit", lambda code: None)
        common._leave_user_error(worker, raised.value)
    return 2
