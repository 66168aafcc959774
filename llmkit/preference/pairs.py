"""Rankings -> preference rows as TRL reads them: all pairs of completions of an item of which one is better.

{"prompt", "chosen", "rejected", "rank_gap", "rater", "item", "chosen_id", "rejected_id"}

Texts where the prompt is a text, lists of messages where it is one; of answers with tools all turns and results, and
the column `tools`. `rank_gap`: places between the two, 1 for neighbours. Completions that tie make no pair; they stay
ties in the rankings. An item that was shown again to measure a rater counts once, by the first ranking. An item that
anybody flagged makes no pairs at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from llmkit.preference.rankings import Decision
from llmkit.preference.rollouts import Item

Row = dict[str, Any]


@dataclass
class Pairs:
    """The rows, and what makes none."""

    rows: list[Row] = field(default_factory=list)
    raters: set[str] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    num_tied: int = 0
    """Pairs of completions that are as good as each other."""
    num_same_text: int = 0
    """Pairs of completions that differ in outer blanks at most: their order says nothing."""
    num_skipped: int = 0
    """Decisions, as below."""
    num_flagged: int = 0
    """Flags, and rankings of items that somebody else flagged."""
    num_repeats: int = 0


def pairs_of(decisions: Iterable[Decision], items: Mapping[str, Item]) -> Pairs:
    """Rows in the order of the decisions, of one decision the larger difference first."""
    found, decisions = Pairs(), list(decisions)
    flagged = {decision.item for decision in decisions if decision.flagged}
    for decision in decisions:
        if decision.item in flagged:
            found.num_flagged += 1
        elif decision.skipped:
            found.num_skipped += 1
        elif decision.repeat:
            found.num_repeats += 1
        else:
            _add(found, decision, items[decision.item])
    return found


def _add(found: Pairs, decision: Decision, item: Item) -> None:
    rows = []
    for better, worse in combinations(decision.ranks, 2):
        gap = decision.ranks[worse] - decision.ranks[better]
        if not gap:
            found.num_tied += 1
        elif item.texts[better].strip() == item.texts[worse].strip():
            found.num_same_text += 1
        else:
            rows.append(_row(decision, item, better, worse, gap))
    found.rows += sorted(rows, key=lambda row: -row["rank_gap"])
    if rows:
        found.raters.add(decision.rater)
        found.items.add(decision.item)


def _row(decision: Decision, item: Item, better: str, worse: str, gap: int) -> Row:
    return {
        "prompt": item.prompt,
        "chosen": item.answers[better],
        "rejected": item.answers[worse],
        "rank_gap": gap,
        "rater": decision.rater,
        "item": item.id,
        "chosen_id": better,
        "rejected_id": worse,
        **item.schemas,
    }
