"""Results of tools in the order of the calls of their turn: templates know them by nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmkit.chat.turn import Message


class Misplaced(ValueError):
    """A result that answers no call.

    Attributes:
        index: of its message.
    """

    def __init__(self, index: int, what: str) -> None:
        super().__init__(what)
        self.index = index


def in_call_order(messages: Sequence[Message], *, begun: bool = False, unread: bool = False) -> list[Message]:
    """The messages with the results of each turn in the order of its calls, by `id` and `tool_call_id`. Results without
    an id stand for the calls that are left, one after another.

    Args:
        begun: the list goes on behind messages that it does not hold: results in front of it stay as they are.
        unread: an assistant's turn without calls may hold some that cannot be read: results without an id behind it
            are the errors of these, and stay as they are.

    Raises:
        Misplaced: a result answers no call of the turn before it, or one that has its result, or leaves out one.
    """
    found: list[Message] = []
    calls: list[Any] | None = None if begun else []
    is_text = False
    results: list[tuple[int, Message]] = []
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            results.append((index, message))
            continue
        found += _sorted(results, calls, is_text)
        results, calls = [], [call.get("id") for call in message.get("tool_calls") or ()]
        is_text = unread and message["role"] == "assistant" and not calls
        found.append(message)
    return found + _sorted(results, calls, is_text)


def _sorted(results: list[tuple[int, Message]], calls: list[Any] | None, is_text: bool) -> list[Message]:
    """Args: calls: their ids; None: not known. is_text: they may stand in the text of their turn."""
    if calls is None or (is_text and not any(message.get("tool_call_id") for _, message in results)):
        return [message for _, message in results]
    free = list(range(len(calls)))
    placed: list[tuple[int, int, Message]] = []
    for has_id in (True, False):
        for index, message in results:
            id = message.get("tool_call_id") or None
            if (id is not None) is has_id:
                placed.append((_place(id, calls, free, index), index, message))
    placed.sort(key=lambda each: each[0])
    for wanted, (place, index, _) in enumerate(placed):
        if place != wanted:
            what = f"is the result of call {place + 1} of the turn before it, and there is none of call {wanted + 1}"
            raise Misplaced(index, what)
    return [message for *_, message in placed]


def _place(id: Any, calls: list[Any], free: list[int], index: int) -> int:
    """Which call a result answers; taken out of those that are left."""
    place = next((place for place in free if id is None or calls[place] == id), None)
    if place is None:
        if id is None:
            raise Misplaced(index, f"is a tool's result, and the turn before it makes {_number(len(calls))}")
        what = "has its result already" if id in calls else "the turn before it does not make"
        raise Misplaced(index, f"is the result of a call '{id}' that {what}")
    free.remove(place)
    return place


def _number(calls: int) -> str:
    return {0: "no call", 1: "one call only"}.get(calls, f"{calls} calls only")
