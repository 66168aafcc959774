"""Judges: whether an answer is right, wrong, a refusal, or nothing at all.

An answer's reasoning (`<think>...</think>`) is no part of it for any judge; one that is nothing else is empty.
What rules can tell is told by rules, whoever the judge is: empty answers, plain refusals, answers that are an accepted
one and nothing more, partial answers that say so (`partial`), answers that talk of their own grading without giving an
accepted one. A model judges the rest. It sees the answer as data: between marks that do not occur in it, and only a
reply that is one verdict counts.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from llmkit.chat.turn import thought_and_said
from llmkit.errors import UserError
from llmkit.knowledge.match import is_accepted, is_correct
from llmkit.knowledge.partial import honest_part, is_part
from llmkit.knowledge.promptfile import PromptFile, compiled
from llmkit.knowledge.records import Verdict
from llmkit.knowledge.refusing import is_empty, is_refusal
from llmkit.knowledge.tokens import plain
from llmkit.recipe.knowledge import JudgeSpec

if TYPE_CHECKING:  # they bring transformers, which rules do not need
    from llmkit.chat.ask import Ask, Engine

PROMPT = PromptFile(
    shipped="judge.jinja",
    setting="judge.prompt",
    variables=frozenset({"question", "accepted", "answer", "document", "fence", "chat"}),
    needed=("question", "accepted", "answer", "fence"),
)
RETRIES = 2
"""Times that a reply without a verdict is asked for again."""
RETRY_TEMPERATURE = 0.7
"""A greedy reply would be the same again."""
RETRY_PAUSE = 0.5
"""Seconds before an endpoint is asked again, doubled from one time to the other."""
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
    num_asked: int
    """Items that rules did not decide, so far."""
    failures: Counter[str]
    """Of these, reason -> number of those that were left undecided."""

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
        self.num_asked = 0
        self.failures: Counter[str] = Counter()

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [self._verdict(item) for item in map(_spoken, items)]

    def _verdict(self, item: Item) -> Verdict:
        if (known := _by_rule(item, self._extra)) is not None:
            return known
        return "correct" if is_correct(_said(item), item.accepted, item.question) else "wrong"


class ModelJudge:
    """Has a model judge what the rules for all judges leave open.

    Args:
        prompt: Jinja text, as `PROMPT.load` gives it.
        chat: the prompt becomes a user message; else plain text that a base model goes on with.
        retry_pause: seconds before what was answered with rubbish is asked again, doubled each time.
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
        retry_pause: float = 0.0,
    ) -> None:
        self._engine = engine
        self._prompt = compiled(prompt)
        self._seed = seed
        self._max_new_tokens = max_new_tokens
        self._extra = tuple(extra_refusals)
        self._chat = chat
        self._retry_pause = retry_pause
        self.num_asked = 0
        self.failures: Counter[str] = Counter()

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Greedily. A reply that is no verdict is asked for again, and drawn; what the engine cannot answer (it has
        tried again itself) and what it never answers as asked is undecided."""
        items = list(map(_spoken, items))
        verdicts: list[Verdict] = [_by_rule(item, self._extra) or "undecided" for item in items]
        left = [i for i, verdict in enumerate(verdicts) if verdict == "undecided"]
        self.num_asked += len(left)
        for retry in range(RETRIES + 1):
            if not left:
                break
            if retry:
                time.sleep(self._retry_pause * 2 ** (retry - 1))
            left = self._round(items, left, verdicts, retry)
        if left:
            self.failures[f"the reply is not one verdict, asked {RETRIES + 1} times"] += len(left)
        return verdicts

    def _round(self, items: Sequence[Item], left: Sequence[int], verdicts: list[Verdict], retry: int) -> list[int]:
        """Asks about the items of these numbers. Returns those whose replies were no verdicts."""
        answers = self._engine.answer(
            [self.ask(items[i], RETRY_TEMPERATURE if retry else 0.0) for i in left],
            max_new_tokens=self._max_new_tokens,
            stop_strings=() if self._chat else ("\n",),
            seed=self._seed + retry,
        )
        rubbish = []
        for i, (answer,) in zip(left, answers, strict=True):
            if answer.finish_reason == "error":
                self.failures[answer.error or "no answer from the engine"] += 1
                continue
            verdicts[i] = read_reply(answer.text)
            if verdicts[i] == "undecided":
                rubbish.append(i)
        return rubbish

    def ask(self, item: Item, temperature: float = 0.0) -> Ask:
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
        return Ask(({"role": "user", "content": prompt},) if self._chat else prompt, f"judge {digest}", (temperature,))


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
    prompt, pause = PROMPT.load(spec.prompt), RETRY_PAUSE if spec.by == "openai" else 0.0
    return ModelJudge(engine, prompt, seed, spec.max_new_tokens, extra_refusals, chat=chat, retry_pause=pause)


def _spoken(item: Item) -> Item:
    """Without the answer's reasoning."""
    thought, said = thought_and_said(item.answer)
    return item if thought is None else replace(item, answer=said)


def _by_rule(item: Item, extra_refusals: Sequence[str]) -> Verdict | None:
    """The verdict that needs no judge; None: one is needed."""
    if is_empty(item.answer):
        return "empty"
    if is_accepted(said := _said(item), item.accepted, item.question):
        return "correct"
    if is_refusal(item.answer, extra_refusals):
        return "refused"
    if said != item.answer and is_part(said, item.question, item.accepted, item.document):
        return "correct" if is_correct(said, item.accepted, item.question) else "refused"
    if speaks_of_grading(item.answer) and not is_correct(item.answer, item.accepted, item.question):
        return "wrong"
    return None


def _said(item: Item) -> str:
    """The answer without an honest end."""
    return honest_part(item.answer) or item.answer


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
