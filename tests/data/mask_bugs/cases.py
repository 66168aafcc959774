"""What a case is, and what cases share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from llmkit.chat.preflight import PreflightContext, PreflightReport, preflight
from llmkit.chat.prove import prove
from llmkit.chat.render import Rendered, render
from llmkit.chat.template import apply_template, load_template
from llmkit.errors import UserError
from mask_bugs.toys import byte_tokenizer

TALK = [
    {"role": "user", "content": "What is 6 times 7? 你好 👋"},
    {"role": "assistant", "content": "It is 42. 🌍"},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]


@dataclass(frozen=True)
class Case:
    origins: tuple[str, ...]  # issues that reported it
    expected: str  # part of the text of a problem
    find: Callable[[], list[str]]


CASES: list[Case] = []


def case(*origins: str, expected: str) -> Callable[[Callable[[], list[str]]], Callable[[], list[str]]]:
    """Register a case."""

    def register(find: Callable[[], list[str]]) -> Callable[[], list[str]]:
        CASES.append(Case(origins, expected, find))
        return find

    return register


def ready(name: str = "chatml", tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer with a shipped template on it."""
    tokenizer = tokenizer or byte_tokenizer()
    apply_template(tokenizer, load_template(name))
    return tokenizer


def with_source(source: str, tokens: Iterable[str] = ("<|im_start|>", "<|im_end|>")) -> PreTrainedTokenizerBase:
    """A tokenizer with any template on it, its tokens added, nothing checked."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": list(tokens)})
    tokenizer.chat_template = source
    return tokenizer


def chatml_with(old: str, new: str) -> PreTrainedTokenizerBase:
    """ChatML with one thing changed."""
    source = load_template("chatml").source
    assert old in source
    return with_source(source.replace(old, new))


def row(rendered: Rendered, **more: Any) -> dict[str, Any]:
    """As preflight takes it."""
    return {"input_ids": rendered.input_ids, "assistant_masks": rendered.assistant_masks, **more}


def good_row(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A row with nothing wrong."""
    return row(render(tokenizer, TALK))


def fly(rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, **changes: Any) -> PreflightReport:
    """Preflight with a healthy context, apart from `changes`."""
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    num_rows = len(rows) if isinstance(rows, Sized) else 0
    context = {"stop_token_id": stop, "generation_eos_ids": (stop,), "conversational": True, "num_rows": num_rows}
    return preflight(rows, tokenizer, PreflightContext(**{**context, **changes}))


def texts(find: Callable[[], Any]) -> list[str]:
    """Texts of the problems that something raises; none if it does not."""
    try:
        find()
    except UserError as error:
        return [str(problem) for problem in error.problems]
    return []


def proved(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Texts of what prove finds."""
    return [str(problem) for problem in prove(tokenizer)]
