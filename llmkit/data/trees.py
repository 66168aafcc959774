"""OpenAssistant trees -> one conversation a tree: from the root along the best-ranked reply at every turn.

Two shapes: flat rows of messages that point to their parents (`oasst1` on the Hub), and one nested tree a row
(`*.trees.jsonl`). Flat rows are held in memory until the last is read, since a child may stand before its parent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from llmkit.data.files import Raw


def conversations(raws: Iterable[Raw], columns: dict[str, str]) -> Iterator[Raw]:
    """A `Raw` with `messages` for each tree; one with `error` for what is no tree, has no answer or has no parent."""
    children: dict[str | None, list[Raw]] = defaultdict(list)
    known: set[str] = set()
    for raw in raws:
        node = raw.value
        if raw.error or not isinstance(node, dict):
            yield raw if raw.error else raw._replace(error="an OpenAssistant row must be an object")
            continue
        node = {**node, **{key: node.get(name) for key, name in columns.items()}}
        if "prompt" in node or "replies" in node:
            yield _nested(raw._replace(value=node.get("prompt", node)))
        elif not isinstance(node.get("message_id"), str):
            yield raw._replace(error="it has no message_id")
        else:
            known.add(node["message_id"])
            children[node.get("parent_id")].append(raw._replace(value=node))
    yield from _flat(children, known)


def _flat(children: dict[str | None, list[Raw]], known: set[str]) -> Iterator[Raw]:
    for root in children[None]:
        path, node = [root.value], root.value
        while replies := [raw.value for raw in children.get(node["message_id"], ())]:
            node = _best(replies)
            path.append(node)
            if len(path) > len(known):
                break
        yield _conversation(root, path)
    for parent, orphans in children.items():
        if parent is not None and parent not in known:
            for orphan in orphans:
                yield orphan._replace(error=f"its parent {parent} is not in the data")


def _nested(raw: Raw) -> Raw:
    path, node = [], raw.value
    while isinstance(node, dict):
        path.append(node)
        replies = [reply for reply in node.get("replies") or () if isinstance(reply, dict)]
        node = _best(replies) if replies else None
    return _conversation(raw, path)


def _best(replies: list[dict[str, Any]]) -> dict[str, Any]:
    """The reply that people ranked first (rank 0); without ranks the first one. Deleted ones last."""

    def order(reply: dict[str, Any]) -> tuple[bool, float]:
        rank = reply.get("rank")
        if not isinstance(rank, (int, float)) or math.isnan(rank):
            rank = math.inf
        return bool(reply.get("deleted")), rank

    return min(replies, key=order)


def _conversation(root: Raw, path: list[dict[str, Any]]) -> Raw:
    while path and path[-1].get("role") != "assistant":
        path = path[:-1]
    if not path:
        return root._replace(error="the tree has no answer by the assistant")
    if any(node.get("deleted") for node in path):
        return root._replace(error="the tree's best path holds a deleted message")
    return root._replace(value={"messages": [{"role": node.get("role"), "content": node.get("text")} for node in path]})
