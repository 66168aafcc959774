"""Reads a command of the pages as its own parser does, up to where its work would begin."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

import llmkit.cli.worker
from llmkit.cli.main import main

WORK = {
    "stages.arena": ["open_run"],
    "stages.chat": ["tools_of"],
    "stages.eval_command": ["at_home", "at_endpoint"],
    "stages.export": ["model_of"],
    "stages.push_command": ["located"],
    "stages.rank_page": ["find_rollouts"],
    "stages.serve_vllm": ["serve_with_vllm"],
    "stages.show": ["stage_tokenizer", "load_tokenizer"],
    "web": ["listen"],
}
"""Module -> functions with which the work of a command begins: what parses and checks its words comes before them."""


class Begun(BaseException):
    """All words were read, and the work would begin."""


def _begin(*_: Any, **__: Any) -> NoReturn:
    raise Begun


@contextmanager
def _without_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as patch:
        for module, names in WORK.items():
            for name in names:
                patch.setattr(importlib.import_module(f"llmkit.{module}"), name, _begin)
        yield patch


def _become(module: str, words: Sequence[str]) -> None:
    """What `llmkit.cli.worker.become` does, without leaving this process."""
    sys.exit(importlib.import_module(f"llmkit.stages.{module}").main(list(words)))


def reads(words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str | None:
    """What `llmkit ...` or `accelerate launch ...` says against its words; None where it would begin."""
    capsys.readouterr()
    with _without_work(monkeypatch) as patch:
        try:
            _start_stage(words, patch) if words[0] == "accelerate" else _start(words, patch)
        except Begun:
            return None
        except SystemExit:
            return capsys.readouterr().err or "ended without a word"
    return "ended without work"


def _start(words: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(llmkit.cli.worker, "become", _become)
    patch.setattr(sys, "argv", list(words))
    main()


def _start_stage(words: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    """`accelerate launch ... -m llmkit.stages.<kind> RECIPE --stage NAME`: Accelerate's parser, then the worker's."""
    from accelerate.commands.launch import launch_command_parser

    from llmkit.errors import LlmkitError
    from llmkit.stages import common

    assert words[1] == "launch"
    args = launch_command_parser().parse_args(words[2:])
    package, _, kind = args.training_script.rpartition(".")
    assert args.module and package == "llmkit.stages", args.training_script
    patch.setattr(common, "read_manifest", _begin)  # of the stage before it
    try:
        common._stage_file(kind, args.training_script_args)
    except LlmkitError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
