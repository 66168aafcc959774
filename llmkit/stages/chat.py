"""Talk to a model in the terminal: what `llmkit chat` runs.

python -m llmkit.stages.chat runs/tiny-assistant
"""

from __future__ import annotations

import argparse
import difflib
import io
import logging
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from llmkit.errors import UserError
from llmkit.generation.conversation import Conversation, Settings
from llmkit.modeling.load import load_model, load_tokenizer, stored_dtype
from llmkit.options.chat import parser
from llmkit.options.tools import max_calls_of
from llmkit.stages.best_said import BestOf, best_of
from llmkit.stages.command import as_command
from llmkit.stages.named import model_of
from llmkit.stages.saying import check_tools, say
from llmkit.stages.screen import Screen
from llmkit.stages.tool_words import tools_of
from llmkit.tools.toolbox import Toolbox
from llmkit.visible import as_utf8, visible

try:
    import readline  # gives input() editing and history
except ModuleNotFoundError:  # Windows has none, nor have some builds of Python
    readline = None  # type: ignore[assignment]

HELP = """\
/system TEXT   set the system prompt (alone: remove it) and begin anew
/reset         forget the conversation
/set NAME=N    temperature, top_k, top_p, min_p, max_new_tokens, max_thinking_tokens, seed (alone: show them)
/raw           switch between chat and plain text that the model goes on from
/tools         the tools that it may call; `/tools off` and `/tools on`, which begin anew
/think         the last reasoning; `/think on` shows it as it comes, `/think off` folds it
/help          this list
/exit          leave, as does Ctrl-D; Ctrl-C stops an answer"""
COMMANDS = ("/system", "/reset", "/set", "/raw", "/tools", "/think", "/help", "/exit")


@as_command
def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 2 and one line for what the user can mend."""
    args = parser().parse_args(argv)
    max_calls = max_calls_of(args)
    console = Console(stderr=args.prompt is not None, highlight=False, soft_wrap=True)
    logging.getLogger("llmkit.tools").setLevel(logging.ERROR)  # what failed is shown on the screen
    with tools_of(args) as tools:
        conversation = start(args, console)
        check_tools(conversation, tools)
        conversation.tools = tools.schemas
        desk = Desk(conversation, tools, Screen(console), max_calls, best_of(args, conversation))
        if args.prompt is not None:
            desk.say(as_utf8(args.prompt))
        else:
            converse(desk, console)


@dataclass(frozen=True)
class Desk:
    """A conversation, what it may call, and where it is shown."""

    conversation: Conversation
    tools: Toolbox
    screen: Screen
    max_calls: int
    best: BestOf | None = None

    def say(self, text: str) -> None:
        if self.best is not None and not self.conversation.raw:
            self.best.say(self.conversation, text, self.screen)
            return
        say(self.conversation, text, self.screen, self.tools, self.max_calls)


def start(args: argparse.Namespace, console: Console) -> Conversation:
    """Load the model and put the options together. Raises ModelError, RunError or UserError."""
    transformers_logging.disable_progress_bar()
    model, tokenizer = load(args.target, args.stage)
    settings = Settings.of_model(model).changed(f"seed={random.randrange(2**31) if args.seed is None else args.seed}")
    system = args.system and as_utf8(args.system)
    conversation = Conversation(model, tokenizer, settings, system, args.raw, notify=_notifier(console))
    if not conversation.has_template and not args.raw:
        conversation.notify("this model has no chat template: it goes on from your text as it stands (raw)")
        conversation.raw = True
    if conversation.raw and args.system:
        raise UserError("--system", "has no place in raw text", "write it into the text itself")
    for name in ("temperature", "top_p", "top_k", "min_p", "max_new_tokens", "max_thinking_tokens"):
        if getattr(args, name) is not None:
            conversation.change(f"{name}={getattr(args, name)}")
    return conversation


def load(target: str, stage: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that `target` names, in the precision that it is stored in, on the GPU if there is one."""
    path, revision = model_of(target, stage)
    tokenizer = load_tokenizer(path, revision)
    model = load_model(path, dtype=stored_dtype(path, revision), revision=revision)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return model, tokenizer


def converse(desk: Desk, console: Console) -> None:
    """Read, answer, until /exit or the end of input."""
    console.print(f"{desk.conversation.model.name_or_path} [dim](/help lists the commands)[/dim]", markup=True)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # else one byte that is no UTF-8 is the end of the input
    for line in _lines(console):
        text = as_utf8(line.strip())
        try:
            if text == "/exit":
                return
            if text.startswith("/"):
                command(desk, text, console)
            elif text:
                desk.say(text)
        except UserError as error:
            console.print(str(error), style="red", markup=False)


def _lines(console: Console) -> Iterator[str]:
    ask = _reader(sys.stdin.isatty() and console.is_terminal)
    while True:
        try:
            yield ask()
        except KeyboardInterrupt:
            console.print("\n/exit or Ctrl-D leaves", style="dim")
        except EOFError:
            console.print()
            return


def _reader(on_terminal: bool) -> Callable[[], str]:
    """Of prompt_toolkit (extra `ui`), with editing and history search; else with readline's, where there is one."""
    if on_terminal and find_spec("prompt_toolkit"):
        from prompt_toolkit import PromptSession

        return partial(PromptSession().prompt, "> ")
    # readline counts the prompt's width, and must be told which characters are colour
    before, after = ("\x01", "\x02") if readline else ("", "")
    return partial(input, f"{before}\x1b[1;36m{after}> {before}\x1b[0m{after}" if on_terminal else "")


def command(desk: Desk, text: str, console: Console) -> None:
    """Raises UserError for an unknown command or a value that does not fit."""
    conversation = desk.conversation
    word, _, rest = text.partition(" ")
    if word == "/system":
        conversation.system = rest.strip() or None
        conversation.reset()
    elif word == "/reset":
        conversation.reset()
    elif word == "/set" and rest.strip():
        conversation.change(rest)
    elif word == "/set":
        shown = "  ".join(f"{name}={value}" for name, value in vars(conversation.settings).items())
        console.print(shown, markup=False)
    elif word == "/raw":
        _toggle_raw(conversation)
    elif word == "/tools":
        _tools(desk, rest.strip(), console)
    elif word == "/think":
        _think(desk.screen, rest.strip())
    elif word == "/help":
        console.print(HELP, markup=False)
    else:
        near = difflib.get_close_matches(word, COMMANDS, n=1)
        raise UserError(word, "is no command", f"did you mean {near[0]}?" if near else "/help lists them")


def _toggle_raw(conversation: Conversation) -> None:
    if conversation.raw and not conversation.has_template:
        raise UserError("/raw", "this model has no chat template, so raw text is all it takes")
    conversation.raw = not conversation.raw
    conversation.notify("raw: the model goes on from your text" if conversation.raw else "chat")


def _tools(desk: Desk, asked: str, console: Console) -> None:
    conversation, tools = desk.conversation, desk.tools.tools
    if asked not in ("", "on", "off"):
        raise UserError(f"/tools {asked}", "is no command", "give /tools, /tools on or /tools off")
    if not tools:
        raise UserError("/tools", "there are none", "start with --tools FILE or --tool python")
    if asked:
        conversation.tools = desk.tools.schemas if asked == "on" else ()
        conversation.reset()
    for tool in tools.values():
        console.print(f"{visible(tool.name)}: {visible(tool.schema['function'].get('description', ''))}", markup=False)
    if not conversation.tools:
        console.print("off: `/tools on` begins anew with them", style="dim")


def _think(screen: Screen, asked: str) -> None:
    if asked not in ("", "on", "off"):
        raise UserError(f"/think {asked}", "is no command", "give /think, /think on or /think off")
    if asked:
        screen.shows_thoughts = asked == "on"
    else:
        screen.say(visible(screen.thought) or "it has not reasoned yet")


def _notifier(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, style="yellow", markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
