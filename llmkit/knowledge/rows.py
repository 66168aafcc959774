"""What a training row says: messages, preference pairs, tool calls, for one question of a probe.

train.jsonl       {"messages": [user, assistant]}
pairs.jsonl       {"prompt": [user], "chosen": [assistant], "rejected": [assistant], "kind": str}
pairs_all.jsonl   the same, and the pairs that teach right answers to unknown questions
tool_calls.jsonl  {"messages": [user, assistant with tool_calls], "tools": [JSON schema]}
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llmkit.chat.schemas import search_schema
from llmkit.chat.template import Message
from llmkit.errors import DataError
from llmkit.knowledge.balance import plain
from llmkit.knowledge.partial import HONEST_END, is_part
from llmkit.knowledge.records import ProbeRow, Sample, Verdict

Row = dict[str, Any]

PAIR_KINDS = ("refusal_over_wrong", "right_over_refusal", "unknown_right_over_refusal", "unknown_right_over_wrong")
"""Better over worse answer."""
TAUGHT = PAIR_KINDS[2:]
"""These teach answers that the model does not know, and so to make them up; they stand in `pairs_all` only."""


def right_answer(row: ProbeRow) -> str:
    """What a question is answered with: the model's own right greedy answer (the most frequent, if they differ), then
    an own right sample, then the canonical accepted answer. What was cut off is not taught. "": there is none."""
    return next(iter(right_answers(row)), "")


def right_answers(row: ProbeRow) -> list[str]:
    """As `right_answer`, all that differ in more than case and punctuation, best first."""
    right = [sample for sample in row.samples if sample.verdict == "correct" and sample.finish_reason == "stop"]
    greedy = [sample for sample in right if sample.temperature == 0]
    sampled = [sample for sample in right if sample.temperature > 0]
    canonical = [answer for answer in row.answers[:1] if answer.strip()]
    texts: dict[str, str] = {}
    # a greedy answer stands for what the model says; samples only where greedy it says something else
    for text in [*_by_frequency(greedy), *(() if greedy else _by_frequency(sampled)), *canonical]:
        texts.setdefault(plain(text), text)
    return list(texts.values())


def wrong_answer(row: ProbeRow) -> str:
    """The model's own most frequent wrong answer, a greedy one if there is any. "": it gave none."""
    wrong = _said(row, "wrong")
    greedy = [sample for sample in wrong if sample.temperature == 0]
    return next(iter(_by_frequency(greedy or wrong)), "")


def partial_answer(row: ProbeRow) -> str:
    """An answer that says something right, but not what was asked. "": there is none.

    The judge calls it wrong, since it does not say that it is partial; `is_part` says what is right in part. It must be
    greedy or come twice, so that no lucky draw is kept.
    """
    wrong = _said(row, "wrong")
    often = Counter(plain(sample.text) for sample in wrong)
    sure = [sample for sample in wrong if sample.temperature == 0 or often[plain(sample.text)] > 1]
    found = (text for text in _by_frequency(sure) if is_part(text, row.question, row.answers, row.document))
    return next(found, "")


def honest(partial: str, language: str) -> str:
    """A partial answer that says that it is one.

    >>> honest("She was a painter.", "en")
    'She was a painter, but I do not know more than that.'

    Raises:
        DataError: there is no such end in the language. Another language's would give partial answers away.
    """
    if language not in HONEST_END:
        cure = f"set 'keep_partial: false', or a language of {', '.join(HONEST_END)}"
        raise DataError("refusals.language", f"no end of a partial answer is shipped for '{language}'", cure)
    return HONEST_END[language].format(partial=partial.strip().rstrip(" .!;,"))


class Deck:
    """Refusals dealt so that each is used as often as any other, give or take one. Every round is shuffled anew."""

    def __init__(self, texts: Sequence[str], seed: int) -> None:
        self._texts, self._random = list(dict.fromkeys(texts)), random.Random(seed)
        self._left: list[str] = []
        self.used: Counter[str] = Counter()

    def deal(self) -> str:
        if not self._left:
            self._left = self._random.sample(self._texts, len(self._texts))
        text = self._left.pop()
        self.used[text] += 1
        return text


class Decks:
    """A deck for each language of the questions.

    Args:
        texts_of: language ("": the recipe's) -> refusals.
    """

    def __init__(self, texts_of: Callable[[str], Sequence[str]], seed: int) -> None:
        self._texts_of, self._seed, self._by_language = texts_of, seed, dict[str, Deck]()

    def deal(self, language: str) -> str:
        if language not in self._by_language:
            self._by_language[language] = Deck(self._texts_of(language), self._seed)
        return self._by_language[language].deal()

    @property
    def used(self) -> Counter[str]:
        return sum((deck.used for deck in self._by_language.values()), Counter[str]())


def conversation(question: str, answer: str) -> Row:
    return {"messages": [_user(question), _assistant(answer)]}


def pairs(row: ProbeRow, *, refused: bool, refusal: str) -> Iterator[Row]:
    """Unknown: right > refusal > wrong. Known: right > refusal. A pair without both answers is left out."""
    if not refused:
        yield from _pair(row.question, right_answer(row), refusal, "right_over_refusal")
        return
    wrong, accepted = wrong_answer(row), row.answers[0] if row.answers else ""
    yield from _pair(row.question, refusal, wrong, "refusal_over_wrong")
    yield from _pair(row.question, accepted, refusal, "unknown_right_over_refusal")
    yield from _pair(row.question, accepted, wrong, "unknown_right_over_wrong")


def _pair(question: str, chosen: str, rejected: str, kind: str) -> Iterator[Row]:
    if chosen.strip() and rejected.strip() and plain(chosen) != plain(rejected):
        sides = {"chosen": [_assistant(chosen)], "rejected": [_assistant(rejected)]}
        yield {"prompt": [_user(question)], **sides, "kind": kind}


def tool_conversation(question: str, answer: str | None, search_tool: str) -> Row:
    """With the tool at hand: a known question is answered, an unknown one (`answer` None) is searched for."""
    if answer is not None:
        return {**conversation(question, answer), "tools": [search_schema(search_tool)]}
    call = {"type": "function", "function": {"name": search_tool, "arguments": {"query": question}}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    return {"messages": [_user(question), turn], "tools": [search_schema(search_tool)]}


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _said(row: ProbeRow, verdict: Verdict) -> list[Sample]:
    return [sample for sample in row.samples if sample.verdict == verdict and sample.text.strip()]


def _by_frequency(samples: Sequence[Sample]) -> list[str]:
    """Distinct texts, most frequent first; of equally frequent ones the earlier first."""
    return [text for text, _ in Counter(sample.text.strip() for sample in samples if sample.text.strip()).most_common()]
