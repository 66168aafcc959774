"""Rankings by a model: it sees all answers to a prompt as data, in a shuffled order, and is asked twice.

Judges prefer what stands first or last, and long answers (Zheng et al. 2023, arXiv 2306.05685, section 3.3). So each
prompt is shown in two orders; an answer's place is the mean of both, and what the two orders contradict ties.
"""

from __future__ import annotations

import hashlib
import random
import re
import string
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, product

from llmkit.chat.ask import Ask, Engine
from llmkit.chat.told import steps, transcript
from llmkit.knowledge.judge import RETRIES, RETRY_TEMPERATURE, speaks_of_grading
from llmkit.knowledge.promptfile import PromptFile, compiled
from llmkit.preference.rankings import Decision
from llmkit.preference.rollouts import Completion, Item
from llmkit.recipe.preference import RankJudgeSpec

PROMPT = PromptFile(
    shipped="rank.jinja",
    setting="judge.prompt",
    variables=frozenset({"prompt", "answers", "fence", "chat"}),
    needed=("prompt", "answers", "fence"),
)
LONGEST = 4000
"""Characters of a prompt or answer that the judge sees; of a prompt the last ones."""
_CUT = "[{left:,} characters {where} this are not shown to you; whoever wrote them did not stop here]"
_ORDERS = 2
_REPLY = re.compile(r"(?:order\s*:\s*)?([A-Z]+(?:\s*[>=]\s*[A-Z]+)*)\s*\.?", re.IGNORECASE)


@dataclass(frozen=True)
class Shown:
    """One item as it is put to the judge: the completions in the order of their letters."""

    item: Item
    ids: tuple[str, ...]
    round: int


class RankJudge:
    """Puts completions in order by asking a model.

    Args:
        chat: the prompt becomes a user message; else plain text that a base model goes on with.

    Attributes:
        failures: why prompts were left without an order, and how many.
        num_graders: answers that spoke to the judge: they come last unseen.
    """

    def __init__(self, engine: Engine, spec: RankJudgeSpec, name: str, seed: int, *, chat: bool) -> None:
        self._engine, self._spec, self._name, self._seed, self._chat = engine, spec, name, seed, chat
        self._prompt = compiled(PROMPT.load(spec.prompt))
        self.failures: Counter[str] = Counter()
        self.num_graders = 0

    def rank(self, items: Sequence[Item], on_progress: Callable[[int], None] = lambda done: None) -> list[Decision]:
        """Decisions on the items that the judge could put in order, in both ways of showing them."""
        started = time.monotonic()
        shown = [self._shown(item, number) for item in items for number in range(_ORDERS)]
        orders_of = {(one.item.id, one.round): one.ids for one in shown}
        read: dict[tuple[str, int], list[list[str]]] = {
            (one.item.id, one.round): [[id] for id in one.ids] for one in shown if len(one.ids) < 2
        }
        left = [one for one in shown if len(one.ids) > 1]
        for retry in range(RETRIES + 1):
            if left:
                left = self._ask(left, retry, read)
            on_progress(len(items) * (retry + 1) // (RETRIES + 1))
        if left:
            self.failures[f"the reply is no order of all answers, asked {RETRIES + 1} times"] += len(left)
        # requests run side by side, so that an item has its share of the time and none of its own
        seconds = round((time.monotonic() - started) / max(len(items), 1), 4)
        decided = []
        for item in items:
            places = [(item.id, number) for number in range(_ORDERS)]
            if all(place in read for place in places):
                asked = [orders_of[place] for place in places]
                decided.append(self._decision(item, asked, [read[place] for place in places], seconds))
        return decided

    def _shown(self, item: Item, number: int) -> Shown:
        fair = [each.id for each in item.completions if not speaks_of_grading(_said(each))]
        if not number:
            self.num_graders += len(item.completions) - len(fair)
        rng = random.Random(f"{self._seed} {item.id} {item.version}")
        rng.shuffle(fair)
        # the second time the other way round: what stood first stands last
        return Shown(item, tuple(fair[::-1] if number else fair), number)

    def _ask(self, shown: Sequence[Shown], retry: int, read: dict[tuple[str, int], list[list[str]]]) -> list[Shown]:
        """Fills in what is read. Returns those whose replies were no orders."""
        answers = self._engine.answer(
            [self.ask(one, RETRY_TEMPERATURE if retry else 0.0) for one in shown],
            max_new_tokens=self._spec.max_new_tokens,
            stop_strings=() if self._chat else ("\n",),
            seed=self._seed + retry,
        )
        rubbish = []
        for one, (answer,) in zip(shown, answers, strict=True):
            if answer.finish_reason == "error":
                self.failures[answer.error or "no answer from the engine"] += 1
                continue
            groups = read_order(answer.text, len(one.ids))
            if groups is None:
                rubbish.append(one)
            else:
                read[one.item.id, one.round] = [[one.ids[place] for place in group] for group in groups]
        return rubbish

    def ask(self, one: Shown, temperature: float = 0.0) -> Ask:
        """The prompt of one item."""
        texts = [shown_of(one.item.completion(id)) for id in one.ids]
        asked = asked_of(one.item)
        prompt = self._prompt.render(
            prompt=asked,
            answers=list(zip(letters(len(texts)), texts, strict=True)),
            fence=fence_of([asked, *texts]),
            chat=self._chat,
        ).strip()
        key = f"rank {one.item.id} {one.item.version} {one.round}"
        return Ask(({"role": "user", "content": prompt},) if self._chat else prompt, key, (temperature,))

    def _decision(
        self, item: Item, asked: Sequence[Sequence[str]], orders: Sequence[Sequence[Sequence[str]]], seconds: float
    ) -> Decision:
        places: Counter[str] = Counter()
        for groups in orders:
            for place, group in enumerate(groups):
                places.update(dict.fromkeys(group, place))
        fair = {id for groups in orders for group in groups for id in group}
        levels = sorted({places[id] for id in fair})
        groups = [tuple(id for id in item.texts if id in fair and places[id] == level) for level in levels]
        graders = tuple(id for id in item.texts if id not in fair)
        return Decision(
            id=hashlib.sha256(f"{self._name} {item.id} {item.version}".encode()).hexdigest()[:24],
            rater=self._name,
            time="",
            item=item.id,
            version=item.version,
            shown=(*asked[0], *graders),
            shown_again=(*asked[1], *graders),
            groups=tuple(groups) + ((graders,) if graders else ()),
            seconds=seconds,
            by="judge",
        )


def read_order(text: str, num_answers: int) -> list[list[int]] | None:
    """`B > A = C` as [[1], [0, 2]]; None unless the reply is such a line alone, with every letter once."""
    text = re.sub(r"\A\s*<think>.*?</think>", "", text, count=1, flags=re.DOTALL).strip().strip("*`\"' \n")
    found = _REPLY.fullmatch(text)
    if found is None:
        return None
    places = {letter: place for place, letter in enumerate(letters(num_answers))}
    groups = [[places.get(letter.strip().upper(), -1) for letter in group.split("=")] for group in found[1].split(">")]
    placed = sorted(place for group in groups for place in group)
    return groups if placed == list(range(num_answers)) else None


def letters(num: int) -> list[str]:
    """A to Z, then AA, AB, ...: what so many answers are called."""
    sizes = (product(string.ascii_uppercase, repeat=size) for size in count(1))
    return ["".join(each) for each in islice(chain.from_iterable(sizes), num)]


def told_cut(items: Sequence[Item]) -> str:
    """`2 of 10 answers and 1 of 5 prompts are longer than the 4,000 characters ...`; empty where nothing is."""
    cut = {
        "answers": [_is_long(each) for item in items for each in item.completions],
        "prompts": [len(asked_in(item)) > LONGEST for item in items],
    }
    counts = " and ".join(f"{sum(found)} of {len(found)} {name}" for name, found in cut.items() if any(found))
    shown = f"are longer than the {LONGEST:,} characters that a judge is shown: an answer's first, a prompt's last"
    return f"{counts} {shown}" if counts else ""


def asked_in(item: Item) -> str:
    """The prompt as text; of a conversation all turns."""
    if isinstance(item.prompt, str):
        return item.prompt
    if len(item.prompt) == 1:
        return str(item.prompt[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in item.prompt)


def asked_of(item: Item) -> str:
    """The prompt as the judge sees it, with a line that says what is left out."""
    text = asked_in(item)
    left = len(text) - LONGEST
    return f"{_CUT.format(left=left, where='before')}\n{text[-LONGEST:]}" if left > 0 else text


def shown_of(completion: Completion) -> str:
    """An answer as the judge sees it, with a line that says what is left out. With tools, calls and results stand in
    front of what it says."""
    return "\n".join(_cut(part) for part in _parts(completion))


def _parts(completion: Completion) -> list[str]:
    """What is cut each for itself: with tools all turns before the last one, and that one."""
    if not completion.messages:
        return [completion.text]
    return [transcript(part) for part in (completion.messages[:-1], completion.messages[-1:]) if part]


def _cut(text: str) -> str:
    left = len(text) - LONGEST
    return f"{text[:LONGEST]}\n{_CUT.format(left=left, where='after')}" if left > 0 else text


def _is_long(completion: Completion) -> bool:
    return any(len(part) > LONGEST for part in _parts(completion))


def _said(completion: Completion) -> str:
    """What an answer itself says: code that it ran and documents that it found often speak of what is true."""
    said = (text for kind, text in steps(completion.messages) if kind == "said")
    return "\n".join(said) if completion.messages else completion.text


def fence_of(texts: Sequence[str]) -> str:
    """Twelve hexadecimal digits that stand in no text, the same for the same texts."""
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()
    while any(digest[:12] in text for text in texts):
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return digest[:12]
