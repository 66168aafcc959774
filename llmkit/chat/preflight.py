"""What must hold for the rows of a stage before its model loads.

One pass over the rows, in blocks that numpy sees as one flat array. Each check answers to bugs that users of other
systems reported; tests/data/mask_bugs holds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from llmkit.chat.prove import TALK, prove
from llmkit.chat.render import TrainOn, prompt_ids, render
from llmkit.chat.rows import Block, Findings
from llmkit.chat.template import template_of
from llmkit.errors import PreflightError, Problem, TemplateError

BLOCK_ROWS = 2048

# kind -> (what is wrong, how to mend it). {stop}, {prompt} are filled in.
_TEXTS = {
    "empty": ("it has no tokens", "drop the row"),
    "untrained": (
        "no token of it is trained: it would add nothing, and a batch of such rows gives a loss of NaN",
        "drop the row, or let an assistant turn be trained",
    ),
    "untrained_cut": (
        "it was cut before its first trained token",
        "raise max_length, shorten the prompt or drop the row",
    ),
    "range": ("it holds a token id that the embedding has no row for", "resize the embedding to the tokenizer"),
    "pad": ("a padding token is trained", "set labels to -100 there, or give padding its own token"),
    "bos": ("it begins with two BOS tokens", "tokenise rendered text with add_special_tokens=False"),
    "labels": (
        "a label differs from the token at its place: labels are shifted, or from another row",
        "labels must equal input_ids or be -100; the model shifts them itself",
    ),
    "all_ones": (
        "every token is trained, the user's too: the template's {% generation %} marks were not used",
        "render with llmkit.chat.render, or set train_on: all if you mean it",
    ),
    "stop": (
        "a trained turn does not end with the trained stop token {stop}: the model would not learn to stop",
        "train the stop token, and do not let padding or truncation remove it",
    ),
    "crossed": (
        "training goes on behind the stop token {stop}, into text that the assistant did not write",
        "end the mask at the stop token of each turn",
    ),
    "prefix": (
        "trained tokens do not begin right behind the generation prompt {prompt}: the start of an answer is untrained,"
        " or something else is trained",
        "render rows with llmkit.chat.render and the template that the model will be prompted with",
    ),
}


@dataclass(frozen=True)
class PreflightContext:
    """What preflight needs to know besides rows and tokenizer.

    Attributes:
        stop_token_id: ends a trained stretch: the template's stop token in conversations, EOS in completions and
            whole documents; None where documents are cut into chunks and need not end.
        generation_eos_ids: `generation_config.eos_token_id` of the model as a list.
        conversational: rows were rendered from messages.
        num_rows, num_truncated: rows before any were dropped, and how many of them were cut to max_length.
        max_truncated: largest share of cut rows to accept, 0 to 1.
        max_length: rows this long count as cut when num_truncated is above 0 and rows have no `truncated` of their own.
        train_on: as given to `render`.
        embedding_rows: rows of the model's embedding; None to check only against the tokenizer.
        parent_template_sha: sha256 of the template that the input model was trained with; None for a base model.
        new_token_ids: ids that the model has never seen.
        trainable_token_ids: embedding rows that training changes; None for all (full fine-tuning).
        name: what the rows are, for messages.
    """

    stop_token_id: int | None
    generation_eos_ids: tuple[int, ...]
    conversational: bool
    num_rows: int
    num_truncated: int = 0
    max_truncated: float = 0.0
    max_length: int | None = None
    train_on: TrainOn = "assistant"
    embedding_rows: int | None = None
    parent_template_sha: str | None = None
    new_token_ids: tuple[int, ...] = ()
    trainable_token_ids: tuple[int, ...] | None = None
    name: str = "train"


@dataclass(frozen=True)
class PreflightReport:
    """Counts over all rows seen, and warnings that do not stop the stage."""

    num_rows: int
    num_tokens: int
    num_trained_tokens: int
    num_trained_turns: int  # unbroken trained stretches
    num_untrained_turns: int  # assistant turns that are shown and not trained
    num_truncated: int
    num_stops_cut: int  # trained turns whose stop token was cut off
    longest_row: int  # tokens
    warnings: tuple[str, ...] = ()

    @property
    def share_trained(self) -> float:
        """Trained tokens over all tokens, 0 to 1."""
        return self.num_trained_tokens / self.num_tokens if self.num_tokens else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return {**asdict(self), "share_trained": self.share_trained}


def preflight(
    rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, context: PreflightContext
) -> PreflightReport:
    """Check rows, tokenizer and their surroundings.

    Args:
        rows: each with input_ids and either assistant_masks (1 = trained) or labels (-100 = not trained); optionally
            truncated (bool), and position_ids or seq_lengths if packed.

    Raises:
        PreflightError: everything that is wrong; each kind once, with its first row and how many rows have it.
    """
    problems = list(_surroundings(tokenizer, context))
    counts = dict.fromkeys(("rows", "tokens", "trained", "turns", "shown", "cut", "longest"), 0)
    findings = Findings()
    prompt = _generation_prompt(tokenizer) if context.conversational else ()
    try:
        for block in _blocks(rows, context):
            _look(block, tokenizer, context, prompt, findings, counts)
    except ValueError as error:
        problems.append(Problem(context.name, str(error), "each row needs masks as long as its ids"))
    if not counts["rows"]:
        problems.append(Problem(context.name, "there are no rows", "check the data and its filters"))
    problems += _row_problems(tokenizer, context, prompt, findings)
    if problems:
        raise PreflightError(problems)
    return PreflightReport(
        num_rows=counts["rows"],
        num_tokens=counts["tokens"],
        num_trained_tokens=counts["trained"],
        num_trained_turns=counts["turns"],
        num_untrained_turns=counts["shown"],
        num_truncated=context.num_truncated,
        num_stops_cut=counts["cut"],
        longest_row=counts["longest"],
        warnings=tuple(_warnings(context, counts)),
    )


def _surroundings(tokenizer: PreTrainedTokenizerBase, context: PreflightContext) -> Iterator[Problem]:
    """Problems that need no row."""
    if context.conversational:
        yield from prove(tokenizer)
        yield from _parent(tokenizer, context)
    yield from _ends(tokenizer, context)
    yield from _embedding(tokenizer, context)
    share = context.num_truncated / context.num_rows if context.num_rows else 0.0
    if share > context.max_truncated:
        what = (
            f"{context.num_truncated} of {context.num_rows} rows ({share:.1%}) are cut to max_length, "
            f"more than max_truncated = {context.max_truncated:.1%}; a cut answer lacks its end and its stop token"
        )
        yield Problem(context.name, what, "raise max_length, drop long rows, or raise max_truncated")


def _parent(tokenizer: PreTrainedTokenizerBase, context: PreflightContext) -> Iterator[Problem]:
    template = template_of(tokenizer)
    parent = context.parent_template_sha
    if template is not None and parent is not None and parent != template.sha256:
        what = f"template {template.name} ({template.sha256[:8]}) is not the one the input model knows ({parent[:8]})"
        yield Problem("model.chat_template", what, "use the input model's template, or begin from a base model")


def _ends(tokenizer: PreTrainedTokenizerBase, context: PreflightContext) -> Iterator[Problem]:
    """Stop token, EOS and padding, which are three things."""
    stop, pad, ends = context.stop_token_id, tokenizer.pad_token_id, context.generation_eos_ids
    name = tokenizer.convert_ids_to_tokens
    if stop is not None and stop not in ends:
        what = f"it does not hold the stop token {name(stop)}: generation would run on past each answer"
        yield Problem("generation_config.eos_token_id", what, f"add {stop}")
    if context.conversational and stop is None:
        yield Problem(context.name, "conversations without a stop token", "give the template a stop_token")
    if pad is None:
        cure = "give it one of its own, not EOS"
        yield Problem("tokenizer", "it has no padding token, and trainers would then take EOS", cure)
        return
    if pad in (stop, tokenizer.eos_token_id):
        what = f"{name(pad)} is both padding and end: collators that mask padding mask the end, and nothing stops"
        yield Problem("tokenizer", what, "give padding a token of its own")
    if pad in ends:
        what = f"it holds the padding token {name(pad)}: batched generation would end at once"
        yield Problem("generation_config.eos_token_id", what, f"remove {pad}")


def _embedding(tokenizer: PreTrainedTokenizerBase, context: PreflightContext) -> Iterator[Problem]:
    """Every token has a row, and rows that must be learned can be."""
    rows, trainable = context.embedding_rows, context.trainable_token_ids
    if rows is not None and len(tokenizer) > rows:
        what = f"{rows} rows for a tokenizer of {len(tokenizer)} tokens"
        yield Problem("model embedding", what, "resize the embedding after adding tokens")
    if trainable is None:
        return
    needed = set(context.new_token_ids)
    if context.conversational and context.parent_template_sha is None:
        template = template_of(tokenizer)
        needed.update(tokenizer.convert_tokens_to_ids(list(template.special_tokens)) if template else [])
    if frozen := sorted(needed - set(trainable)):
        names = " ".join(tokenizer.convert_ids_to_tokens(frozen))
        what = f"the rows of {names} stay as the base model has them, untrained: the model could not write them"
        yield Problem("peft", what, f"set trainable_token_indices to {frozen}")


def _generation_prompt(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What precedes an answer: the ids that add_generation_prompt adds, or the end of the user's turn."""
    try:
        prompt = prompt_ids(tokenizer, TALK[:1])
        added = prompt[len(render(tokenizer, TALK[:1], train_on="all").input_ids) :]
    except TemplateError:
        return ()  # prove has said why
    return tuple(added or prompt[-1:])


def _blocks(rows: Iterable[Mapping[str, Any]], context: PreflightContext) -> Iterator[Block]:
    max_length = context.max_length if context.num_truncated else None
    iterator, first = iter(rows), 0
    while batch := list(islice(iterator, BLOCK_ROWS)):
        yield Block.of(batch, first, max_length)
        first += len(batch)


def _look(
    block: Block,
    tokenizer: PreTrainedTokenizerBase,
    context: PreflightContext,
    prompt: tuple[int, ...],
    findings: Findings,
    counts: dict[str, int],
) -> None:
    """Look for each fault in a block; add to findings and counts."""
    ids_T, trained_T = block.ids_T, block.trained_T
    lengths_N, trained_N = block.ends_N - block.starts_N, block.per_row(trained_T)
    empty_N = lengths_N == 0
    none_N = (trained_N == 0) & ~empty_N
    findings.whole("empty", block, empty_N)
    findings.whole("untrained", block, none_N & ~block.truncated_N)
    findings.whole("untrained_cut", block, none_N & block.truncated_N)

    limit = context.embedding_rows or len(tokenizer)
    findings.at("range", block, np.flatnonzero((ids_T < 0) | (ids_T >= limit)))
    findings.at("labels", block, np.flatnonzero(trained_T & (block.labels_T != ids_T)))
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id, context.stop_token_id):
        findings.at("pad", block, np.flatnonzero(trained_T & (ids_T == tokenizer.pad_token_id)))
    if tokenizer.bos_token_id is not None and len(ids_T) > 1:
        is_bos_T = ids_T == tokenizer.bos_token_id
        twice = is_bos_T[:-1] & is_bos_T[1:] & block.opens_T[:-1] & ~block.opens_T[1:]
        findings.at("bos", block, np.flatnonzero(twice))

    first_R, last_R = block.runs()
    full_N = (trained_N == lengths_N) & ~empty_N
    asked_all = context.train_on == "all"
    if context.conversational and not asked_all:
        findings.whole("all_ones", block, full_N)
        keep_R = ~full_N[block.row_T[first_R]]
        first_R, last_R = first_R[keep_R], last_R[keep_R]
        counts["shown"] += _check_prefix(block, prompt, first_R, findings)
        _check_crossed(block, context.stop_token_id, full_N, findings)
    if context.stop_token_id is not None:
        counts["cut"] += _check_stops(block, context.stop_token_id, last_R, asked_all, findings)
    counts["turns"] += len(first_R)
    counts["rows"] += len(lengths_N)
    counts["tokens"] += len(ids_T)
    counts["trained"] += int(trained_N.sum())
    counts["longest"] = max(counts["longest"], int(lengths_N.max()))


def _check_prefix(block: Block, prompt: tuple[int, ...], first_R: np.ndarray, findings: Findings) -> int:
    """Runs begin behind a generation prompt; returns how many prompts are followed by nothing trained."""
    if not prompt:
        return 0
    behind = block.ends_with(prompt)
    cut_R = block.truncated_N[block.row_T[first_R]] & (first_R == block.starts_N[block.row_T[first_R]])
    findings.at("prefix", block, first_R[~behind[first_R] & ~cut_R])
    return int(behind[:-1].sum() - behind[first_R].sum())


def _check_crossed(block: Block, stop: int | None, full_N: np.ndarray, findings: Findings) -> None:
    """No trained token follows a trained stop token within a document."""
    goes_on_T = block.trained_T[:-1] & block.trained_T[1:] & ~block.opens_T[1:] & ~full_N[block.row_T[:-1]]
    if stop is not None:
        findings.at("crossed", block, np.flatnonzero(goes_on_T & (block.ids_T[:-1] == stop)))


def _check_stops(block: Block, stop: int, last_R: np.ndarray, asked_all: bool, findings: Findings) -> int:
    """Runs end with the stop token; returns how many lost theirs to truncation."""
    if asked_all:  # runs are whole rows and may end with markup: ask for one stop token in each
        has_stop_N = block.per_row(block.trained_T & (block.ids_T == stop)) > 0
        findings.whole("stop", block, ~has_stop_N & ~block.truncated_N & (block.ends_N > block.starts_N))
        return int((~has_stop_N & block.truncated_N).sum())
    open_R = last_R[block.ids_T[last_R] != stop]
    rows_R = block.row_T[open_R]
    cut_R = block.truncated_N[rows_R] & (open_R == block.ends_N[rows_R] - 1)
    findings.at("stop", block, open_R[~cut_R])
    return int(cut_R.sum())


def _row_problems(
    tokenizer: PreTrainedTokenizerBase, context: PreflightContext, prompt: tuple[int, ...], findings: Findings
) -> Iterator[Problem]:
    stop = "" if context.stop_token_id is None else tokenizer.convert_ids_to_tokens(context.stop_token_id)
    for kind, found in findings.kinds.items():
        what, cure = _TEXTS[kind]
        what = what.replace("{stop}", str(stop)).replace("{prompt}", repr(tokenizer.decode(list(prompt))))
        known = [token for token in found.ids if 0 <= token < len(tokenizer)]
        excerpt = f" near {tokenizer.decode(known)!r}" if known else ""
        others = f" ({found.num_rows - 1} more rows alike)" if found.num_rows > 1 else ""
        yield Problem(f"{context.name} row {found.row}", f"{what}{excerpt}{others}", cure)


def _warnings(context: PreflightContext, counts: dict[str, int]) -> Iterator[str]:
    if counts["cut"]:
        yield f"{counts['cut']} answers were cut before their stop token and teach no end"
    if counts["shown"] and context.train_on == "assistant":
        yield f"{counts['shown']} assistant turns are shown and not trained (train: false, or cut)"
    if counts["trained"] < 0.02 * counts["tokens"]:
        share = counts["trained"] / counts["tokens"]
        yield f"only {share:.1%} of the tokens are trained: most of the computation is spent on prompts"
