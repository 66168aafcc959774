"""Rankings -> token ids of prompts and of all their answers, for a trainer that scores every answer once.

Ids come from `llmkit.data.pairs.split_answer`, as for every other row: an answer ends with its stop token. Rows of
pairs are rankings of two. Cached as `llmkit.data.build` caches its rows.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.arrow_writer import ArrowWriter
from transformers import PreTrainedTokenizerBase

from llmkit.artifacts.files import write_json
from llmkit.artifacts.manifest import DataSummary
from llmkit.chat.turn import last_text
from llmkit.data.build import ACCEPTS, Built, cached, loaded
from llmkit.data.canonical import training_rows
from llmkit.data.degenerate import with_degenerate
from llmkit.data.encode import IGNORE, at
from llmkit.data.files import Raw
from llmkit.data.messages import BadRow, Row
from llmkit.data.mixture import Mixture, mix
from llmkit.data.pairs import split_answer
from llmkit.data.pool import Opened, Opener
from llmkit.data.tokens import NUM_EXAMPLES, Example, Settings, facts_of, quantiles, spells_tokens, told
from llmkit.errors import DataError, TemplateError
from llmkit.recipe.parts import DataSource
from llmkit.recipe.preference import DegenerateSpec

COLUMNS = ["prompt_ids", "answers_ids", "rankings"]
_INTS = datasets.List(datasets.Value("int32"))
_FEATURES = datasets.Features(
    {
        "prompt_ids": _INTS,
        "answers_ids": datasets.List(_INTS),
        "rankings": datasets.List(_INTS),
        "place": datasets.Value("float64"),
        "num_ranked": datasets.Value("int32"),
    }
)


@dataclass(frozen=True)
class RankedRow:
    """A prompt of P tokens, K answers to it, each with its stop token, and R lists of K ranks, 1 best."""

    prompt_ids: list[int]
    answers_ids: list[list[int]]
    rankings: list[list[int]]


def as_ranking(row: Row) -> Row:
    """A `preference` row as a ranking of two; a ranking as it is."""
    if "rankings" in row:
        return row
    return {**row, "answers": [row["chosen"], row["rejected"]], "rankings": [[1, 2]]}


def ranked_row(tokenizer: PreTrainedTokenizerBase, row: Row, max_length: int) -> RankedRow | None:
    """A ranking as token ids, without its oldest turns where it would be too long; None where even the last one is.

    Raises:
        DataError: an answer is no single stretch, or two answers with different ranks are the same to the tokenizer.
        TemplateError: the template cannot render the row, or writes the prompt differently for its answers.
    """
    for prompt in shorter(row["prompt"]):
        split = [split_answer(tokenizer, prompt, answer, row.get("tools")) for answer in row["answers"]]
        prompts = {tuple(ids) for ids, _ in split}
        if len(prompts) > 1:
            what = "it writes the prompt differently for its answers"
            raise TemplateError("chat template", what, "use one that renders a prompt without looking at its answer")
        answers = [ids for _, ids in split]
        if len(split[0][0]) + max(map(len, answers)) <= max_length:
            _check_distinct(answers, row["rankings"])
            return RankedRow(split[0][0], answers, row["rankings"])
    return None


def shorter(prompt: Any) -> Iterator[Any]:
    """The prompt, then without its oldest turn, and so on, down to the last message; a system message stays."""
    yield prompt
    if isinstance(prompt, str):
        return
    head = prompt[:1] if prompt[0].get("role") == "system" else []
    turns = prompt[len(head) :]
    for start in range(1, len(turns)):
        if turns[start].get("role") == "user":
            yield [*head, *turns[start:]]


def _check_distinct(answers: list[list[int]], rankings: list[list[int]]) -> None:
    for i, first in enumerate(answers):
        for j in range(i):
            if first == answers[j] and any(ranks[i] != ranks[j] for ranks in rankings):
                raise DataError(f"answers {j} and {i}", "are the same to the tokenizer", "remove one of them")


def distinct_rows(tokenizer: PreTrainedTokenizerBase) -> Opener:
    """Reads rows of the reward stage. Those are bad that rank two answers differently which are the same to the
    tokenizer: they differ in white space, say, that its template strips."""
    opener = training_rows(ACCEPTS["reward"], "reward")

    def opened(source: DataSource, raws: Iterator[Raw]) -> Opened:
        inner = opener(source, raws)

        def convert(raw: Raw) -> Row:
            row = inner.convert(raw)
            _refuse_same(tokenizer, as_ranking(row))
            return row

        return inner._replace(convert=convert)

    return opened


def _refuse_same(tokenizer: PreTrainedTokenizerBase, row: Row) -> None:
    """Raises BadRow. Only answers that look alike are rendered: all others differ to any tokenizer."""
    looks = [_look(answer) for answer in row["answers"]]
    if len(set(looks)) == len(looks):
        return
    try:
        answers = [split_answer(tokenizer, row["prompt"], each, row.get("tools"))[1] for each in row["answers"]]
        _check_distinct(answers, row["rankings"])
    except DataError as error:
        problem = error.problems[0]
        raise BadRow(f"{problem.where} {problem.what}") from None
    except TemplateError:
        return  # which is said, with the row's place, when it is rendered


def _look(answer: Any) -> str:
    """A text without blanks, capitals and marks over letters."""
    letters = unicodedata.normalize("NFKD", last_text(answer)).casefold()
    return "".join(letter for letter in letters if not (letter.isspace() or unicodedata.combining(letter)))


def place_of(prompt: Any) -> float:
    """Where a prompt stands between 0 and 1, the same in every data set and for every seed. A text stands where the
    conversation does that chat templates make of it."""
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    digest = blake2b(json.dumps(prompt, sort_keys=True).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def build_rankings(
    sources: list[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    seed: int,
    max_rejected: float,
    dedup: bool,
    data_stages: dict[str, Path],
    degenerate: DegenerateSpec | None = None,
    rejected_file: Path | None = None,
    gated_file: Path | None = None,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Read, mix and tokenise rankings. Arguments and errors as in `llmkit.data.build.build`.

    Args:
        degenerate: what is put behind the others; prompts are chosen by their hash.

    Returns:
        `dataset` with the columns of COLUMNS; `rows` with `place` (see `place_of`) and `num_ranked` beside them, the
        number of answers that somebody ranked: those behind them are degenerate. In the summary a row is
        a prompt, its length that of the prompt with its longest answer; tokens count the prompt once an answer, as the
        model reads it; rows that did not fit are counted as truncated, and are not there.
    """
    settings = Settings(f"reward {degenerate!r}", max_length, False, "", True, None)
    mixed = partial(
        mix,
        sources,
        seed=seed,
        data_stages=data_stages,
        opener=distinct_rows(tokenizer),
        max_rejected=max_rejected,
        dedup=dedup,
        rejected_file=rejected_file,
        gated_file=gated_file,
    )
    write = partial(_write, tokenizer, max_length, degenerate, progress)
    target, mixture = cached(mixed, tokenizer, settings, cache_dir, write)
    rows = datasets.Dataset.from_file(str(target / "rankings.arrow"))
    return loaded(target, mixture, rows.select_columns(COLUMNS), rows)


def _write(
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    spec: DegenerateSpec | None,
    progress: Callable[[int, int], None] | None,
    mixture: Mixture,
    folder: Path,
) -> None:
    """`rankings.arrow`, and `built.json` with `summary` and `examples`."""
    lengths: list[int] = []
    num_tokens = num_trained = num_truncated = num_spelling = 0
    examples: list[Example] = []
    with ArrowWriter(path=str(folder / "rankings.arrow"), features=_FEATURES, writer_batch_size=1000) as writer:
        for placed in told(mixture, progress):
            row = as_ranking(placed.row)
            place, num_ranked = place_of(row["prompt"]), len(row["answers"])
            whole = row
            if spec is not None and _chosen(row["prompt"], spec.fraction):
                whole = with_degenerate(row, spec.kinds, random.Random(f"degenerate {place}"))
            try:
                # what was made up takes no answer's place
                ranked = ranked_row(tokenizer, whole, max_length) or ranked_row(tokenizer, row, max_length)
            except (DataError, TemplateError) as error:
                raise at(placed.where, error) from error
            if ranked is None:
                num_truncated += 1
            else:
                writer.write({**asdict(ranked), "place": place, "num_ranked": num_ranked})
                if len(examples) < NUM_EXAMPLES:
                    examples.append(_example(row, placed.where, ranked))
                sizes = [len(ids) for ids in ranked.answers_ids]
                lengths.append(len(ranked.prompt_ids) + max(sizes))
                num_tokens += len(sizes) * len(ranked.prompt_ids) + sum(sizes)
                num_trained += sum(sizes)
            num_spelling += spells_tokens(tokenizer, placed.row)
        writer.finalize()
    summary = DataSummary(
        num_rows=len(lengths),
        num_tokens=num_tokens,
        num_trained_tokens=num_trained,
        num_truncated=num_truncated,
        num_spelling_tokens=num_spelling,
        length_quantiles=quantiles(lengths) if lengths else {},
    )
    write_json(folder / "built.json", facts_of(summary, examples))


def _chosen(prompt: Any, fraction: float) -> bool:
    """By another hash than `place_of`, so that held-out prompts get as many."""
    return place_of(["degenerate", prompt]) < fraction


def _example(row: Row, where: str, ranked: RankedRow) -> Example:
    """The prompt and its best answer by the first rater."""
    best = int(np.argmin(ranked.rankings[0]))
    labels = [IGNORE] * len(ranked.prompt_ids) + ranked.answers_ids[best]
    return Example(row, where, ranked.prompt_ids + ranked.answers_ids[best], labels)
