"""Rollouts to rank: a few prompts with answers of all lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmkit.preference.rankings import Decision
from llmkit.preference.rollouts import Item

PROMPTS = (
    "Write a joke about a pelican.",
    "Say something kind to somebody who has lost a race.",
    "Why is the sky blue? Explain it to a child of six.",
    "Name a use for a single sock.",
    "Describe the smell of rain.",
    "Give a title for a book about moths.",
)
ANSWERS = (
    "Why did the pelican pay for dinner? It had the biggest bill.",
    "A pelican walks into a bar. The barman says nothing, because the barman is a fish, and it is a long evening for "
    "both of them; in the end they agree to meet again on Thursday, on neutral ground, each with a lawyer.",
    "Pelicans are large water birds.",
    "I cannot write jokes.",
    "ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha",
)


def rollout_row(index: int, prompt: Any = None, texts: tuple[str, ...] = ANSWERS) -> dict[str, Any]:
    """Odd ones are conversations."""
    text = PROMPTS[index % len(PROMPTS)]
    asked = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": text}] if index % 2 else text
    completions = [{"id": f"c{place}", "text": each, "model": f"m{place}"} for place, each in enumerate(texts)]
    return {"id": f"p{index}", "prompt": prompt or asked, "completions": completions, "source": "test"}


def called_row(result: str = "<script>x</script>\x1b[31m4") -> dict[str, Any]:
    """One answer after a call of a tool, and one without."""
    function = {"name": "python", "arguments": {"code": "print(2 + 2)"}}
    begun = {"role": "assistant", "reasoning_content": "Hm.", "content": "Let me see."}
    turns = [
        {**begun, "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": result},
        {"role": "assistant", "content": "It is 4."},
    ]
    row = rollout_row(1, texts=("It is 4.", "It is 5."))
    row["completions"][0]["messages"] = turns
    return row


def write_rollouts(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def decision(item: Item, groups: list[str], rater: str = "anna", **of: Any) -> Decision:
    """`groups`: ids that tie in one text, such as ["c1", "c0 c2"]."""
    given = {
        "id": f"{rater}-{item.id}-{of.get('repeat', 0)}",
        "seconds": 3.0,
        "time": "2026-01-01T00:00:00+00:00",
        **of,
    }
    shown = tuple(item.texts)
    split = tuple(tuple(group.split()) for group in groups)
    return Decision(item=item.id, version=item.version, rater=rater, shown=shown, groups=split, **given)
