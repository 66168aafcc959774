"""Questions -> a model's answers on disk, chunk by chunk.

    answers-00012.jsonl   {"id", "answers": [{"text", "thought", "temperature", "variant", "logprob", ...}]}

`text` is what an answer says behind its reasoning, `thought` the reasoning (null: there is none); `logprob` and
`num_tokens` are of both.

A chunk that is written is not asked again, but for the questions of which an answer failed for another reason than its
prompt: an engine that broke down may have been mended.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from llmkit.chat.ask import Answer, Ask, Engine
from llmkit.chat.turn import thought_and_said
from llmkit.knowledge.asking import Asking
from llmkit.knowledge.records import Question
from llmkit.knowledge.store import Row, Steps


def to_ask(steps: Steps, step: str, own: Sequence[int]) -> list[int]:
    """Of these chunks those that are missing, or that hold answers to ask for again."""
    return [index for index in own if not steps.path(step, index).is_file() or _has_failed(steps, step, index)]


def answer_chunk(
    steps: Steps, step: str, index: int, questions: Sequence[Question], asking: Asking, engine: Engine
) -> Counter[str]:
    """Asks what has no answer yet and writes the chunk. Returns reason -> number of answers that failed and that may
    be had another time."""
    before: list[Row | None] = [None] * len(questions)
    if steps.path(step, index).is_file():
        before = list(steps.read(step, index))
    asks = [asking.asks(q) if _is_open(row) else [] for q, row in zip(questions, before, strict=True)]
    answers = engine.answer(
        [one for own in asks for one in own],
        max_new_tokens=asking.spec.max_new_tokens,
        top_p=asking.spec.top_p,
        stop_strings=asking.stop_strings,
        seed=asking.seed,
    )
    rows = [
        _row(q, own, answers, row, thinking=asking.thinking)
        for q, own, row in zip(questions, asks, before, strict=True)
    ]
    steps.write(step, index, rows)
    return Counter(answer["error"] for row in rows for answer in row["answers"] if _may_be_had(answer))


def only_thought(answer: Row) -> bool:
    """Whether an answer is reasoning and nothing else, most often because it was cut off."""
    return answer["thought"] is not None and not answer["text"]


def thoughts_alone(number: int, num_answers: int, option: str) -> str:
    """The warning of such answers. Args: option: of the recipe, which limits them."""
    what = f"{number} of {num_answers} answers are reasoning without an answer behind it"
    return f"{what} and count as empty; raise '{option}'"


def _row(
    question: Question, asks: Sequence[Ask], answers: Iterator[list[Answer]], before: Row | None, *, thinking: bool
) -> Row:
    """The answers to one question, variant by variant. Of those that it had before only the failed ones change: the
    others may be judged already."""
    said = []
    for variant, (one, given) in enumerate(zip(asks, answers, strict=False)):
        for temperature, answer in zip(one.temperatures, given, strict=True):
            thought, text = thought_and_said(answer.text, thinking=thinking and answer.finish_reason != "error")
            text = answer.text if thought is None else text
            own = {"text": text, "thought": thought, "logprob": _rounded(answer.logprob)}
            said.append(asdict(answer) | own | {"temperature": temperature, "variant": variant})
    if before is not None:
        said = [said[place] if _may_be_had(old) else old for place, old in enumerate(before["answers"])]
    return {"id": question.id, "answers": said}


def _is_open(row: Row | None) -> bool:
    return row is None or any(map(_may_be_had, row["answers"]))


def _rounded(logprob: float | None) -> float | None:
    """To four decimals: the rest is noise of float32 and differs by number of threads and processes."""
    return round(logprob, 4) if logprob is not None and math.isfinite(logprob) else None


def _may_be_had(answer: Row) -> bool:
    return answer["finish_reason"] == "error" and not answer.get("permanent")


def _has_failed(steps: Steps, step: str, index: int) -> bool:
    """Rows are parsed only if they hold an error: a million take minutes."""
    with steps.path(step, index).open("rb") as file:
        lines = (line for line in file if b'"finish_reason":"error"' in line)
        return any(_may_be_had(answer) for line in lines for answer in json.loads(line)["answers"])
