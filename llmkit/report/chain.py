"""The chain as a picture: a box per model, and on the arrow what it took and what it changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from llmkit.artifacts.manifest import Manifest
from llmkit.report.compare import against_half, has_changes, largest_change, wins
from llmkit.report.numbers import difference, duration, percent, short_count
from llmkit.report.run import RunReport, StageReport
from llmkit.report.words import kind_of

_BOX, _HIGH, _ARROW = 152, 62, 128
_PER_ROW = 3
_OF_ROWS = ("refusals", "rank", "reward")
"""Kinds that follow upon a stage's rows, whatever model they start from."""
_COUNTED = {"rollout": (("completions", "answers"),), "rank": (("pairs", "pairs"),)}


@dataclass(frozen=True)
class Node:
    """A box, and the words on the arrow that leads to it."""

    name: str
    kind: str
    href: str
    status: str
    makes_model: bool = True
    """Else it leaves rows, and the next box starts from the model before it."""
    follows: bool = True
    """Starts from the model in the box before."""
    time: str = ""
    tokens: str = ""
    task: str = ""
    change: str = ""
    colour: str = "unclear"


def nodes(report: RunReport) -> list[Node]:
    chain = report.chain
    starts_from_base = not chain or any(stage.parent == "base" for stage in chain)
    model = (report.model or "base model").rpartition("/")[2]
    found = [Node("base", model, "results", "finished")] if starts_from_base else []
    model = box = "base"
    for stage in chain:
        follows = box in _origins(stage) if stage.kind in _OF_ROWS else stage.parent == model
        found.append(_node(report, stage, follows))
        box, model = stage.name, stage.name if stage.makes_model else model
    return found


def _origins(stage: StageReport) -> list[str]:
    """Where its model comes from, or its rows."""
    if stage.kind == "refusals":
        return [str(name) for name in stage.settings.get("probes") or []]
    if stage.kind == "rank":
        return [str(stage.settings.get("rollouts") or "rollouts")]
    if stage.kind == "reward" and stage.rows_from:
        return stage.rows_from
    return [stage.parent] if stage.parent else []


def _node(report: RunReport, stage: StageReport, follows: bool) -> Node:
    is_control = stage.name in report.controls and stage.makes_model
    short = "control" if is_control else stage.kind
    origins = _origins(stage)
    kind = kind_of(stage) if follows or not origins else f"{short}, from {origins[-1]}"
    if stage.status == "planned":
        return Node(stage.name, kind, "chain", stage.status, stage.makes_model, follows, time="not started")
    node = Node(stage.name, kind, f"stage-{stage.name}", stage.status, stage.makes_model, follows)
    if stage.manifest is None:
        return replace(node, time=stage.status)
    data = stage.manifest.data
    sampled = stage.manifest.metrics.get("sampled_tokens")
    num_tokens = stage.manifest.metrics.get("tokens") or (data.num_tokens if data else 0)
    tokens = f"{short_count(num_tokens)} tokens" if num_tokens else ""
    tokens = f"{short_count(sampled)} tokens sampled" if sampled else tokens
    node = replace(node, time=duration(stage.manifest.seconds), tokens=tokens)
    if not stage.makes_model:
        return _with_rows(node, stage.manifest)
    if is_control:
        return node
    if stage.kind == "rlhf" and (row := wins(report, stage.name)):
        return replace(node, task="wins by gold", change=percent(row.value), colour=against_half(row))
    if largest := largest_change(report, stage.name):
        line, made = largest
        return replace(node, task=line.name, change=difference(made.value, line.is_share), colour=made.colour)
    return replace(node, task="no clear change") if has_changes(report, stage.name) else node


def _with_rows(node: Node, made: Manifest) -> Node:
    """What a stage that trains nothing left: questions with their largest label, or rows."""
    if made.probe and made.probe.num_questions:
        label, num = max(made.probe.labels.items(), key=lambda item: item[1], default=("", 0))
        told = f"{short_count(made.probe.num_questions)} questions"
        return replace(node, tokens=told, task=label, change=percent(num / made.probe.num_questions))
    if made.kind == "reward":
        accuracy = made.metrics.get("heldout/accuracy")
        return node if accuracy is None else replace(node, tokens="", task="pairs in order", change=percent(accuracy))
    for key, noun in _COUNTED.get(made.kind, ()):
        if key in made.metrics:
            return replace(node, tokens=f"{short_count(made.metrics[key])} {noun}")
    num_rows = made.metrics.get("num_rows") or (made.data.num_rows if made.data else 0)
    return replace(node, tokens=f"{short_count(num_rows)} rows" if num_rows else node.tokens)


def row_pictures(all_nodes: Sequence[Node]) -> list[Markup]:
    """Left to right, for wide screens: the first row holds one box more, for it begins without an arrow."""
    rows = [list(all_nodes[: _PER_ROW + 1])]
    rest = all_nodes[_PER_ROW + 1 :]
    rows += [list(rest[start : start + _PER_ROW]) for start in range(0, len(rest), _PER_ROW)]
    width = 4 + _BOX * len(rows[0]) + _ARROW * max(0, len(rows[0]) - 1)
    return [_row(row, width, leads_in=index > 0) for index, row in enumerate(rows) if row]


def _row(row: Sequence[Node], width: int, leads_in: bool) -> Markup:
    parts, x = [], 2
    for index, node in enumerate(row):
        if index or leads_in:
            parts.append(_arrow(x, 2 + _HIGH // 2, x + _ARROW, 2 + _HIGH // 2, node))
            middle = x + _ARROW / 2 - 3
            for text, y, css in _words(node):
                parts.append(_text(middle, 2 + _HIGH / 2 + y, text, f"{css} mid"))
            x += _ARROW
        parts.append(_box(x, 2, _BOX, node))
        x += _BOX
    return _svg(width, _HIGH + 14, "wide", parts)


def column_picture(all_nodes: Sequence[Node]) -> Markup:
    """Top to bottom, for phones."""
    width, parts, y = 340, [], 2
    for index, node in enumerate(all_nodes):
        if index:
            gap = 92 if node.task else 62 if node.tokens else 44
            parts.append(_arrow(40, y, 40, y + gap, node))
            for text, below, css in _words(node):
                parts.append(_text(58, y + (48 if node.tokens else gap / 2 + 13) - 4 + below, text, css))
            y += gap
        parts.append(_box(2, y, width - 4, node))
        y += _HIGH
    return _svg(width, y + 2, "narrow", parts)


def _words(node: Node) -> list[tuple[str, float, str]]:
    """(text, baseline relative to the arrow, class)"""
    return [
        (node.time, -24 if node.tokens else -9, "small"),
        (node.tokens, -9, "small"),
        (_cut(node.task, 19), 18, "small"),
        (node.change, 34, f"small strong {node.colour}"),
    ]


def _arrow(x1: int, y1: int, x2: int, y2: int, node: Node) -> Markup:
    css = "arrow" if node.follows else "arrow loose"
    if y1 == y2:
        shaft, head = f"M{x1 + 6} {y1}L{x2 - 1} {y2}", f"M{x2 - 8} {y2 - 4}L{x2 - 1} {y2}L{x2 - 8} {y2 + 4}"
    else:
        shaft, head = f"M{x1} {y1 + 5}L{x2} {y2 - 1}", f"M{x2 - 4} {y2 - 8}L{x2} {y2 - 1}L{x2 + 4} {y2 - 8}"
    return Markup(f'<path class="{css}" d="{shaft}"/><path class="arrow" d="{head}"/>')


def _box(x: int, y: int, width: int, node: Node) -> Markup:
    return Markup(
        '<a href="#{href}"><rect class="box {status}" x="{x}" y="{y}" width="{width}" height="{high}" rx="{round}"/>'
        "{name}{kind}</a>"
    ).format(
        href=node.href,
        status=node.status if node.makes_model else f"{node.status} rows",
        round=6 if node.makes_model else _HIGH // 2,
        x=x,
        y=y,
        width=width,
        high=_HIGH,
        name=_text(x + width / 2, y + 27, _cut(node.name, 16), "name mid"),
        kind=_text(x + width / 2, y + 46, _cut(node.kind, 22), "small mid"),
    )


def _text(x: float, y: float, text: str, css: str) -> Markup:
    return Markup(f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>') if text else Markup("")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _svg(width: int, height: int, css: str, parts: Sequence[Markup]) -> Markup:
    head = f'<svg class="chain {css}" viewBox="0 0 {width} {height}" style="max-width:{width}px">'
    return Markup(head) + Markup("").join(parts) + Markup("</svg>")
