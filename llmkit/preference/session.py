"""What the ranking page may ask for: a rater's next turn, a decision, an undo, how far raters agree.

One session per file of rankings. What it says is plain data; the page never learns an item's or a completion's id, so
that nothing tells which model wrote what. Calls come from several threads and are served one after another.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import combinations
from statistics import median
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llmkit.chat.told import steps
from llmkit.errors import LlmkitError
from llmkit.preference.agreement import between, ceiling, with_oneself
from llmkit.preference.rankings import LONGEST_REASON, LONGEST_TURN, Decision, Standing, Undo, check_groups, standing
from llmkit.preference.rollouts import Completion, Item
from llmkit.preference.store import Store, place_in
from llmkit.preference.turns import Turn, asked, showing, turns
from llmkit.visible import visible

State = dict[str, Any]


class Stale(LlmkitError):
    """The page shows what is not to be decided any more: another window was faster, or the items changed."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rater: str
    id: str = Field(pattern="^[0-9a-f-]{8,64}$")


class DecisionRequest(_Request):
    """One decision. `id` is made by the page and stays the same when it sends the decision again."""

    turn: str
    groups: list[list[int]] = []
    """Places in the order shown, from 0; best group first."""
    skipped: bool = False
    flagged: str = Field(default="", max_length=LONGEST_REASON)
    seconds: float = Field(ge=0)


class UndoRequest(_Request):
    """`id`: of the decision that is taken back."""


class Session:
    def __init__(self, items: Sequence[Item], store: Store, seed: int, repeat: float) -> None:
        self._items = {item.id: item for item in items}
        self._store, self._seed, self._repeat = store, seed, repeat
        self._lock = threading.Lock()
        self._queues: dict[str, list[Turn]] = {}
        self._standing()  # damage is said before the page opens

    def state(self, rater: str) -> State:
        with self._lock:
            return self._state(rater, self._standing())

    def decide(self, request: DecisionRequest) -> State:
        """Saves a decision, once however often it is sent.

        Raises:
            Stale: the turn is decided already, there is no such turn, or the id is that of another's decision.
            ValueError: it is no decision.
            RunError: it could not be saved.
        """
        with self._lock:
            now = self._standing()
            if any(decision.id == request.id for decision in now.of(request.rater)):
                return self._state(request.rater, now)
            if any(event.id == request.id and event.rater != request.rater for event in self._store.events):
                raise Stale("Another rater's decision has this id; nothing was saved. Reload the page.")
            self._store.append(self._decision(request, now))
            return self._state(request.rater, self._standing())

    def undo(self, request: UndoRequest) -> State:
        """Takes a rater's last decision back, once. Its turn comes next, with its groups as `draft`.

        Raises:
            Stale: it is not the last decision any more.
            RunError: it could not be saved.
        """
        with self._lock:
            now = self._standing()
            if request.id not in now.undone:
                own = now.of(request.rater)
                if not own or own[-1].id != request.id:
                    raise Stale("Another window has decided since; undo takes back the last decision only.")
                self._store.append(Undo(id=request.id, rater=request.rater, time=_now()))
                now = self._standing()
            return self._state(request.rater, now) | self._draft(request, now)

    def results(self) -> dict[str, Any]:
        """Of every rater and of every two."""
        with self._lock:
            now = self._standing()
        decisions = list(now.decisions.values())
        return {
            "raters": [self._rater(rater, now) for rater in now.raters],
            "between": [
                {"first": first, "second": second, **asdict(between(decisions, first, second))}
                for first, second in combinations(now.raters, 2)
            ],
            "num_stale": len(now.stale),
        }

    def progress(self, rater: str, now: Standing | None = None) -> dict[str, Any]:
        now = now or self._standing()
        own, queue = now.of(rater), self._turns(rater, now)
        outcomes = Counter(decision.outcome for decision in own)
        return {
            "done": sum(turn.key in now.decisions for turn in queue),
            "total": len(queue),
            "seconds": median(decision.seconds for decision in own) if own else None,
            **{outcome: outcomes[outcome] for outcome in ("skipped", "flagged")},
        }

    def _rater(self, rater: str, now: Standing) -> dict[str, Any]:
        decisions = now.decisions.values()
        own, best = with_oneself(decisions, rater), ceiling(decisions, rater)
        found = {"with_oneself": asdict(own), "ceiling": asdict(best) if best else None}
        return {"rater": rater, **self.progress(rater, now), **found}

    def _standing(self) -> Standing:
        return standing(self._store.events, self._items, partial(place_in, self._store.path))

    def _queue(self, rater: str) -> list[Turn]:
        if rater not in self._queues:
            self._queues[rater] = turns(list(self._items.values()), rater, self._seed, self._repeat)
        return self._queues[rater]

    def _turns(self, rater: str, now: Standing) -> list[Turn]:
        """What was taken back comes first. What was decided stays, also where the queue has another sample by now."""
        queue = {turn.key: turn for turn in self._queue(rater)}
        known = [each for each in [*now.taken_back(rater), *now.of(rater)] if self._is_current(each)]
        first = {each.key: queue.get(each.key) or self._turn_of(each) for each in known}
        return asked([*{**first, **queue}.values()], now.decisions)

    def _is_current(self, decision: Decision) -> bool:
        item = self._items.get(decision.item)
        return item is not None and item.version == decision.version

    def _turn_of(self, decision: Decision) -> Turn:
        return showing(self._items[decision.item], decision.rater, decision.repeat, self._seed)

    def _draft(self, request: UndoRequest, now: Standing) -> State:
        """The groups of what was taken back, if its turn is the next: places in the order that is shown now."""
        last, turn = now.undone[request.id], self._next(request.rater, now)
        if turn is None or turn.key != last.key or turn.item.version != last.version:
            return {}
        return {"draft": [[turn.shown.index(id) for id in group] for group in last.groups]}

    def _next(self, rater: str, now: Standing) -> Turn | None:
        return next((turn for turn in self._turns(rater, now) if turn.key not in now.decisions), None)

    def _state(self, rater: str, now: Standing) -> State:
        turn = self._next(rater, now)
        own = now.of(rater)
        return {
            "rater": rater,
            "raters": sorted({rater, *now.raters}),
            "progress": self.progress(rater, now),
            "turn": _shown(turn) if turn else None,
            "last": {"id": own[-1].id, "outcome": own[-1].outcome} if own else None,
        }

    def _decision(self, request: DecisionRequest, now: Standing) -> Decision:
        turn = next((turn for turn in self._turns(request.rater, now) if turn.name == request.turn), None)
        if turn is None:
            raise Stale("This prompt or its answers have changed since they were shown; nothing was saved.")
        if turn.key in now.decisions or request.id in now.undone:
            raise Stale("This one was decided in another window; nothing was saved twice.")
        if request.groups:
            check_groups(request.groups, range(len(turn.shown)))
        return Decision(
            id=request.id,
            item=turn.item.id,
            version=turn.item.version,
            rater=request.rater,
            repeat=turn.repeat,
            shown=turn.shown,
            groups=tuple(tuple(turn.shown[place] for place in group) for group in request.groups),
            skipped=request.skipped,
            flagged=" ".join(request.flagged.split()),
            seconds=round(min(request.seconds, LONGEST_TURN), 1),
            time=_now(),
        )


def _shown(turn: Turn) -> dict[str, Any]:
    prompt = turn.item.prompt
    messages = [{"role": "prompt", "content": prompt}] if isinstance(prompt, str) else prompt
    made = [turn.item.completion(id) for id in turn.shown]
    return {
        "name": turn.name,
        "prompt": [{"role": visible(each["role"]), "content": visible(each["content"])} for each in messages],
        "answers": [visible(each.text) for each in made],
        "before": [_before(each) for each in made],
    }


def _before(completion: Completion) -> list[dict[str, str]]:
    """With tools: what stands in front of the answer."""
    *turns, last = completion.messages or ({"role": "assistant"},)
    found = [*steps(turns), *(step for step in steps([last]) if step[0] != "said")]
    return [{"kind": kind, "text": visible(text)} for kind, text in found]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
