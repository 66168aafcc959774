"""Commands that need the model libraries become a worker process: this one ends here.

Their options are those of the worker's own parser (`llmkit.options`), read once somebody asks for help or completes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

_HELP = ("-h", "--help")
_CHOSEN = f"{__name__}.parser"


def become(module: str, words: Sequence[str]) -> None:
    """Replace this process with `python -m llmkit.stages.<module> words...`."""
    env = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"}
    argv = [sys.executable, "-m", f"llmkit.stages.{module}", *words]
    sys.stdout.flush()
    os.execvpe(sys.executable, argv, env)


def worker(module: str, **subcommands: str) -> type[TyperCommand]:
    """A command whose words go to `llmkit.stages.<module>` as they are.

    Args:
        subcommands: first word -> the module in `llmkit.options` that has its parser instead.
    """

    class WorkerCommand(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            ctx.meta[_CHOSEN] = subcommands.get(args[0], module) if args else module
            if ctx.resilient_parsing or _asks_for_help(args):
                return super().parse_args(ctx, args)
            ctx.args = list(args)
            return list(args)

        def get_params(self, ctx: Any) -> list[Any]:
            from llmkit.options import parser_for

            return [*_params(parser_for(ctx.meta.get(_CHOSEN, module))), *super().get_params(ctx)]

        def collect_usage_pieces(self, ctx: Any) -> list[str]:
            chosen = [word for word, each in subcommands.items() if each == ctx.meta.get(_CHOSEN)]
            return [*chosen, *super().collect_usage_pieces(ctx)]

        def invoke(self, ctx: Any) -> None:
            become(module, ctx.args)

    return WorkerCommand


def _asks_for_help(words: Sequence[str]) -> bool:
    own = words[: words.index("--")] if "--" in words else words
    return any(word in _HELP for word in own)


def _params(parser: argparse.ArgumentParser) -> list[Any]:
    """What argparse knows, in Typer's form."""

    def command() -> None: ...

    actions = [(group.title, action) for group in parser._action_groups for action in group._group_actions]
    found = [_parameter(action, title) for title, action in actions if not isinstance(action, argparse._HelpAction)]
    command.__signature__ = Signature(found)  # type: ignore[attr-defined]
    made = typer.Typer(add_completion=False)
    made.command(add_help_option=False)(command)
    return list(typer.main.get_command(made).params)


def _parameter(action: argparse.Action, group: str | None) -> Parameter:
    kind: Any = action.type if isinstance(action.type, type) else str
    if action.nargs == 0:
        kind = bool
    elif action.choices:
        kind = Literal[tuple(action.choices)]
    several = action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction)
    about: dict[str, Any] = {"help": action.help, "metavar": action.metavar, "show_default": False}
    if action.option_strings:
        panel = None if group == "options" else group
        info = typer.Option(*action.option_strings, rich_help_panel=panel, **about)
    else:
        info = typer.Argument(**about)
    annotation = Annotated[list[kind] if several else kind, info]  # type: ignore[valid-type]
    default: Any = Parameter.empty if action.required else [] if several else None
    # two options may set one thing, and parameters have names of their own
    name = action.option_strings[-1].lstrip("-").replace("-", "_") if action.option_strings else action.dest
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
