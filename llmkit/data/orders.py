"""Worked problems as training rows: the answer behind the working, in front of it, or behind tokens that say nothing.

A model does the same work for every token that it writes, so an answer in front has to be found within one token's
work. Rows that differ in nothing but the order show what the tokens of the working are worth (Wei et al. 2022, arXiv
2201.11903, section 3.3; filler tokens: Pfau et al. 2024, arXiv 2404.15758).

    data: [{path: "llmkit.data.orders:worked", args: {path: openai/gsm8k, name: main, order: answer_first, ...}}]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

from llmkit.data.messages import BadRow, Row
from llmkit.data.problem_rows import problem_rows
from llmkit.data.sources import is_function, is_local, read_source
from llmkit.errors import DataError
from llmkit.recipe.practice import ProblemSource
from llmkit.recipe.reads import name_of

Order = Literal["reasoning_first", "answer_first", "filler", "think"]
SPOKEN = "The answer is"
FILLER = ". "


def worked(
    *,
    path: str,
    order: Order,
    answer_after: str = SPOKEN,
    name: str | None = None,
    split: str = "train",
    revision: str | None = None,
    columns: dict[str, str] | None = None,
    args: dict[str, Any] | None = None,
) -> Iterator[Row]:
    """`{"prompt", "completion"}` for every problem of a source; with `think` `{"messages"}`.

    Args:
        path: of the problems, as in a recipe; their `solution` holds the working and then the answer.
        order: `reasoning_first` working, then answer; `answer_first` the same words, answer in front; `filler` as many
            `.` as the working has words, then the answer; `think` the working as `reasoning_content`, for a template
            with a span for it.
        answer_after: mark in `solution` between the two.
        name, split, revision, columns, args: of the source, as in a recipe. How many rows are taken, and which slice of
            a file, is said beside this function in the recipe.

    Raises:
        ValueError: an order that is not known, or a source that cannot be.
        DataError: a source that cannot be read, or a row without working or answer.
    """
    if order not in get_args(Order):
        raise ValueError(f"no order {order!r}; there are {', '.join(get_args(Order))}")
    if split != "train" and (is_local(path) or is_function(path)):
        raise ValueError(f"split {split!r} has no effect on {path}; set 'split' beside this function in the recipe")
    source = {"name": name, "split": split, "revision": revision, "columns": columns or {}, "args": args or {}}
    spec = ProblemSource.model_validate({"path": path, "answer_after": answer_after, **source})
    opened = problem_rows(chat=False)(spec, read_source(spec, {}, seed=0))
    for raw in opened.raws:
        where = f"{name_of(spec)}: {raw.file}:{raw.line}"
        if raw.error:
            raise DataError(where, raw.error)
        try:
            row = opened.convert(raw)
            completion = _in_order(row, order, answer_after)
        except BadRow as error:
            raise DataError(where, str(error), "mend or remove the row") from None
        yield _thought(row["prompt"], completion) if order == "think" else _plain(row["prompt"], completion)


def _plain(prompt: str, completion: str) -> Row:
    return {"prompt": prompt, "completion": completion}


def _thought(prompt: str, completion: str) -> Row:
    working, _, answer = completion.rpartition(SPOKEN)
    said = {"role": "assistant", "reasoning_content": working.strip(), "content": f"{SPOKEN}{answer}"}
    return {"messages": [{"role": "user", "content": prompt}, said]}


def _in_order(row: Row, order: Order, mark: str) -> str:
    working = " ".join(str(row["solution"]).rpartition(mark)[0].split())
    if not working:
        raise BadRow(f"nothing stands in front of the mark {mark!r} in solution: there is no working")
    said = f"{SPOKEN} {str(row['answer']).rstrip('.')}."
    if order == "filler":
        return FILLER * len(working.split()) + said
    return f"{said} {working}" if order == "answer_first" else f"{working} {said}"
