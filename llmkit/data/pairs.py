"""Preference rows -> token ids of prompt, chosen and rejected answer, for a trainer that compares the two.

Ids and what is trained come from `llmkit.chat.render`, as for every other row: the answer is the trained stretch, from
behind the generation prompt to its stop token. Cached as `llmkit.data.build` caches its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import datasets
from datasets.arrow_writer import ArrowWriter
from transformers import PreTrainedTokenizerBase

from llmkit.artifacts.files import write_json
from llmkit.artifacts.manifest import DataSummary
from llmkit.chat.encode import document_eos
from llmkit.data.build import ACCEPTS, Built, cached, loaded
from llmkit.data.encode import IGNORE, at, encode
from llmkit.data.messages import Row
from llmkit.data.mixture import Mixture, mix
from llmkit.data.tokens import NUM_EXAMPLES, Example, Settings, facts_of, quantiles, spells_tokens, told
from llmkit.errors import DataError, TemplateError
from llmkit.recipe.parts import DataSource

Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")
COLUMNS = ["prompt_ids", "chosen_ids", "rejected_ids"]
_IN_ONE_TURN = {("assistant", "tool"), ("tool", "tool"), ("tool", "assistant")}
_FEATURES = datasets.Features(
    {
        **{name: datasets.List(datasets.Value("int32")) for name in COLUMNS},
        **{f"{side}_truncated": datasets.Value("bool") for side in SIDES},
    }
)


@dataclass(frozen=True)
class Pair:
    """A prompt of P tokens and two answers to it, each with its stop token."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


def pair_of(tokenizer: PreTrainedTokenizerBase, row: Row) -> Pair:
    """A `preference` row as token ids.

    Raises:
        DataError: an answer is empty or no single stretch, or both answers are the same to the tokenizer.
        TemplateError: the template cannot render the row, or writes the prompt differently for the two answers.
    """
    (prompt, chosen), (other, rejected) = (_split(tokenizer, row, side) for side in SIDES)
    if prompt != other:
        what = "it writes the prompt of chosen and rejected differently"
        raise TemplateError("chat template", what, "use one that renders a prompt without looking at its answer")
    if chosen == rejected:
        raise DataError("chosen and rejected", "are the same to the tokenizer", "remove the row")
    return Pair(prompt, chosen, rejected)


def _split(tokenizer: PreTrainedTokenizerBase, row: Row, side: Side) -> tuple[list[int], list[int]]:
    """As `split_answer`. Raises DataError for an empty answer, and for one with results of tools: the loss is over all
    its tokens."""
    if not isinstance(row[side], str) and any(message["role"] == "tool" for message in row[side]):
        cure = "train a 'reward' stage on these rows, or an 'sft' stage on the better answers"
        raise DataError(side, "holds results of tools, which a 'dpo' stage would train", cure)
    prompt, answer = split_answer(tokenizer, row["prompt"], row[side], row.get("tools"), where=side)
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(document_eos(tokenizer))}
    if set(answer) <= ends:
        raise DataError(side, "is an empty answer", "remove the row")
    return prompt, answer


def split_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: Any, answer: Any, tools: Any = None, *, where: str = "answer"
) -> tuple[list[int], list[int]]:
    """Ids of a prompt and of an answer to it; what the template writes behind its stop token is left out.

    Args:
        prompt, answer: both texts, or both lists of messages. Of an answer with tools the results stand in its ids.

    Raises:
        DataError: the answer is no single stretch, and not for results of tools.
        TemplateError: the template cannot render the two.
    """
    whole = {"prompt": prompt, "completion": answer, "tools": tools}
    encoded = encode(tokenizer, whole, assistant_only_loss=True)
    trained = [index for index, label in enumerate(encoded.labels) if label != IGNORE]
    start, end = trained[0], trained[-1] + 1
    if end - start != len(trained) and not _is_one_turn(answer):
        what = "holds more than one turn of the assistant, with other text between them"
        raise DataError(where, what, "move the earlier turns to 'prompt', and compare last answers")
    return encoded.input_ids[:start], encoded.input_ids[start:end]


def tail_of(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that the chat template writes behind an answer's stop token; none without a template."""
    if tokenizer.chat_template is None:
        return []
    prompt, answer = [{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}]
    encoded = encode(tokenizer, {"prompt": prompt, "completion": answer, "tools": None}, assistant_only_loss=True)
    end = max(index for index, label in enumerate(encoded.labels) if label != IGNORE) + 1
    return encoded.input_ids[end:]


def _is_one_turn(answer: Any) -> bool:
    """Whether results of tools are all that stands between its messages of the assistant."""
    roles = [message["role"] for message in answer] if isinstance(answer, list) else []
    return all(pair in _IN_ONE_TURN for pair in pairwise(roles))


def sequences(rows: datasets.Dataset, side: Side) -> Iterator[dict[str, Any]]:
    """The rows of one side as the trainer's collator lays them out: `input_ids`, `labels`, `truncated`."""
    for row in rows:
        prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
        labels = [IGNORE] * len(prompt) + answer
        yield {"input_ids": prompt + answer, "labels": labels, "truncated": row[f"{side}_truncated"]}


def build_pairs(
    sources: list[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    seed: int,
    max_rejected: float,
    dedup: bool,
    data_stages: dict[str, Path],
    rejected_file: Path | None = None,
    gated_file: Path | None = None,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Read, mix and tokenise preference rows. Arguments and errors as in `llmkit.data.build.build`.

    Returns:
        `dataset` with the columns of COLUMNS; `rows` with `chosen_truncated` and `rejected_truncated` beside them.
        In the summary a row is a pair, its length that of the prompt with the longer answer; tokens count the prompt
        twice, as the model reads it. `examples` hold prompt and chosen, then prompt and rejected, of the first pairs.
    """
    settings = Settings("dpo", max_length, False, "", True, None)
    mixed = partial(
        mix,
        sources,
        seed=seed,
        data_stages=data_stages,
        accept=ACCEPTS["dpo"],
        stage_kind="dpo",
        max_rejected=max_rejected,
        dedup=dedup,
        rejected_file=rejected_file,
        gated_file=gated_file,
    )
    target, mixture = cached(mixed, tokenizer, settings, cache_dir, partial(_write, tokenizer, max_length, progress))
    rows = datasets.Dataset.from_file(str(target / "pairs.arrow"))
    return loaded(target, mixture, rows.select_columns(COLUMNS), rows)


def _write(
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    progress: Callable[[int, int], None] | None,
    mixture: Mixture,
    folder: Path,
) -> None:
    """`pairs.arrow`, and `built.json` with `summary` and `examples`."""
    lengths: list[int] = []
    num_tokens = num_trained = num_truncated = num_spelling = 0
    examples: list[Example] = []
    with ArrowWriter(path=str(folder / "pairs.arrow"), features=_FEATURES, writer_batch_size=1000) as writer:
        for placed in told(mixture, progress):
            try:
                whole = pair_of(tokenizer, placed.row)
                cut = _cut(whole, max_length)
            except (DataError, TemplateError) as error:
                raise at(placed.where, error) from error
            flags = {f"{side}_truncated": _answer(cut, side) != _answer(whole, side) for side in SIDES}
            writer.write({**asdict(cut), **flags})
            if len(examples) < NUM_EXAMPLES:
                examples += [_example(placed.row, placed.where, whole, side) for side in SIDES]
            sizes = [len(_answer(cut, side)) for side in SIDES]
            lengths.append(len(cut.prompt_ids) + max(sizes))
            num_tokens += 2 * len(cut.prompt_ids) + sum(sizes)
            num_trained += sum(sizes)
            num_truncated += any(flags.values())
            num_spelling += spells_tokens(tokenizer, placed.row)
        writer.finalize()
    summary = DataSummary(
        num_rows=len(mixture),
        num_tokens=num_tokens,
        num_trained_tokens=num_trained,
        num_truncated=num_truncated,
        num_spelling_tokens=num_spelling,
        length_quantiles=quantiles(lengths),
    )
    write_json(folder / "built.json", facts_of(summary, examples))


def _answer(pair: Pair, side: Side) -> list[int]:
    return pair.chosen_ids if side == "chosen" else pair.rejected_ids


def _cut(pair: Pair, max_length: int) -> Pair:
    """The pair with both answers cut at `max_length` tokens. Raises DataError where nothing is left to compare."""
    room = max(0, max_length - len(pair.prompt_ids))
    chosen, rejected = pair.chosen_ids[:room], pair.rejected_ids[:room]
    if chosen == rejected:
        what = f"are the same in the first {max_length} tokens"
        raise DataError("chosen and rejected", what, "raise 'trainer.max_length', or remove the row")
    return Pair(pair.prompt_ids, chosen, rejected)


def _example(row: Row, where: str, pair: Pair, side: Side) -> Example:
    prompt, answer = pair.prompt_ids, _answer(pair, side)
    return Example({"side": side, **row}, where, prompt + answer, [IGNORE] * len(prompt) + answer)
