"""Judges: whether an answer is right, wrong, a refusal, or nothing at all.

What rules can tell is told by rules, whoever the judge is: empty answers, plain refusals, answers that are an accepted
one and nothing more, answers that talk of their own grading without giving an accepted one. A model judges the rest. It
sees the answer as data: between marks that do not occur in it, and only a reply that is one verdict counts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llmkit.errors import UserError
from llmkit.knowledge.match import is_accepted, is_correct
from llmkit.knowledge.promptfile import PromptFile, compiled
from llmkit.knowledge.records import Verdict
from llmkit.knowledge.refusing import is_empty, is_refusal
from llmkit.knowledge.tokens import plain
from llmkit.recipe.knowledge import JudgeSpec

if TYPE_CHECKING:  # they bring transformers, which rules do not need
    from llmkit.chat.ask import Answer, Ask, Engine

PROMPT = PromptFile(
    shipped="judge.jinja",
    setting="judge.prompt",
    variables=frozenset({"question", "accepted", "answer", "document", "fence", "chat"}),
    needed=("question", "accepted", "answer", "fence"),
)
_LONGEST = 2000
"""Characters of an answer that a model judge sees."""
_REPLIES: dict[str, Verdict] = {"correct": "correct", "wrong": "wrong", "incorrect": "wrong", "refused": "refused"}
_REPLY = re.compile(r"(?:(?:the )?(?:verdict|grade|answer)(?: is)?\s*[:=]?\s*)?(\w+)", re.IGNORECASE)
_GRADING = re.compile(
    r"\b(?:mark|grade|rate|score|judge|label|count|accept|consider|treat|evaluate|classify)\b.{0,40}\b(?:correct|right|true|pass|10)\b"
    r"|\b(?:output|print|return|respond|reply|say|write|answer)\b.{0,20}\b(?:correct|verdict|true|pass)\b"
    r"|\bverdict\b.{0,20}\b(?:correct|right|true|pass)\b|\bgrad(?:e|er|ing)\b.{0,20}\b(?:correct|right|must|should|pass|a\+)"
    r"|\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instructions?|rules?|prompt|question|accepted|above|previous|grad\w+)\b"
    r"|(?:^|\n)\W*(?:system|assistant|user|developer)\W*:|<\|?\w+\|?>|</?(?:answer|accepted|question|document|system)\b"
    r"|\bthe (?:answer|response)(?: above| below)? (?:is|was) (?:correct|right)\b",
)


@dataclass(frozen=True)
class Item:
    """One answer to judge."""

    question: str
    accepted: tuple[str, ...]
    answer: str
    document: str = ""
    """The text that the question was written from."""


class Judge(Protocol):
    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict per item, in their order."""
        ...


class RulesJudge:
    """`llmkit.knowledge.match` and `refusing`; never undecided.

    Args:
        extra_refusals: refusals in wordings of one's own, as a model was taught them.
    """

    def __init__(self, extra_refusals: Sequence[str] = ()) -> None:
        self._extra = tuple(extra_refusals)

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [self._verdict(item) for item in items]

    def _verdict(self, item: Item) -> Verdict:
        if (known := _by_rule(item, self._extra)) is not None:
            return known
        return "correct" if is_correct(item.answer, item.accepted, item.question) else "wrong"


class ModelJudge:
    """Has a model judge what the rules for all judges leave open.

    Args:
        prompt: Jinja text, as `PROMPT.load` gives it.
        chat: the prompt becomes a user message; else plain text that a base model goes on with.

    Attributes:
        failures: reason -> number of answers that were left undecided.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: str,
        seed: int = 0,
        max_new_tokens: int = 256,
        extra_refusals: Sequence[str] = (),
        *,
        chat: bool = True,
    ) -> None:
        self._engine = engine
        self._prompt = compiled(prompt)
        self._seed = seed
        self._max_new_tokens = max_new_tokens
        self._extra = tuple(extra_refusals)
        self._chat = chat
        self.failures: Counter[str] = Counter()

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Greedily. What the engine cannot answer, and what it answers otherwise than asked, is undecided."""
        verdicts: list[Verdict] = [_by_rule(item, self._extra) or "undecided" for item in items]
        is_open = [i for i, verdict in enumerate(verdicts) if verdict == "undecided"]
        if not is_open:
            return verdicts
        answers = self._engine.answer(
            [self.ask(items[i]) for i in is_open],
            max_new_tokens=self._max_new_tokens,
            stop_strings=() if self._chat else ("\n",),
            seed=self._seed,
        )
        for i, (answer,) in zip(is_open, answers, strict=True):
            verdicts[i] = self._read(answer)
        return verdicts

    def ask(self, item: Item) -> Ask:
        """The prompt of one item."""
        from llmkit.chat.ask import Ask

        digest = _digest(item)
        prompt = self._prompt.render(
            question=item.question,
            accepted=list(item.accepted),
            answer=item.answer[:_LONGEST],
            document=item.document,
            fence=fence_of(item),
            chat=self._chat,
        ).strip()
        return Ask(({"role": "user", "content": prompt},) if self._chat else prompt, key=f"judge {digest}")

    def _read(self, answer: Answer) -> Verdict:
        if answer.finish_reason == "error":
            self.failures[answer.error or "no answer from the engine"] += 1
            return "undecided"
        verdict = read_reply(answer.text)
        if verdict == "undecided":
            self.failures["the reply is not one verdict"] += 1
        return verdict


def open_judge(
    spec: JudgeSpec, engine: Engine | None, extra_refusals: Sequence[str] = (), *, seed: int = 0, chat: bool = True
) -> Judge:
    """The judge that a recipe names.

    Args:
        engine: runs the judging model; None for `by: rules`.
        chat: whether that model takes messages.

    Raises:
        UserError: a prompt that cannot be used, or no engine where one is needed.
    """
    if spec.by == "rules":
        return RulesJudge(extra_refusals)
    if engine is None:
        raise UserError("judge", f"'by: {spec.by}' was given no model", "load one first")
    prompt = PROMPT.load(spec.prompt)
    return ModelJudge(engine, prompt, seed, spec.max_new_tokens, extra_refusals, chat=chat)


def _by_rule(item: Item, extra_refusals: Sequence[str]) -> Verdict | None:
    """The verdict that needs no judge; None: one is needed."""
    if is_empty(item.answer):
        return "empty"
    if is_accepted(item.answer, item.accepted, item.question):
        return "correct"
    if is_refusal(item.answer, extra_refusals):
        return "refused"
    if speaks_of_grading(item.answer) and not is_correct(item.answer, item.accepted, item.question):
        return "wrong"
    return None


def speaks_of_grading(text: str) -> bool:
    """Whether an answer addresses its judge, forges a verdict, or imitates the marks of a prompt."""
    return _GRADING.search(re.sub(r"[ \t]+", " ", plain(text).casefold())) is not None


def fence_of(item: Item) -> str:
    """Twelve hexadecimal digits that stand in no part of the item, the same for the same item."""
    texts = (item.question, *item.accepted, item.answer, item.document)
    digest = _digest(item)
    while any(digest[:12] in text for text in texts):
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return digest[:12]


def _digest(item: Item) -> str:
    text = json.dumps([item.question, item.accepted, item.answer, item.document])
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_reply(text: str) -> Verdict:
    """The verdict of a judge's reply: one line with one of the words, or `{"verdict": "..."}`; else undecided."""
    text = re.sub(r"\A\s*<think>.*?</think>", "", text, count=1, flags=re.DOTALL).strip()
    if text.startswith("{"):
        return _read_json(text)
    found = _REPLY.fullmatch(text.strip("*`\"'. \n"))
    return _REPLIES.get(found[1].lower(), "undecided") if found else "undecided"


def _read_json(text: str) -> Verdict:
    try:
        pairs: Any = json.loads(text, object_pairs_hook=list)
    except (json.JSONDecodeError, RecursionError):
        return "undecided"
    verdicts = [value for key, value in pairs if key == "verdict"] if isinstance(pairs, list) else []
    return _REPLIES.get(str(verdicts[0]).lower(), "undecided") if len(verdicts) == 1 else "undecided"
