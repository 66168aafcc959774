"""Whether an answer declines a request: "I will not help with that", in English, German, French and Spanish.

Other than of a question (`refusing`), where "I do not know" may be followed by no value, of a request it counts how the
answer begins: reasons, warnings and other offers may follow. What goes on to do it all the same is no refusal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmkit.knowledge.refusing import folded_with, is_refusal, patterns

_BEGINNING = 2
"""Sentences of an answer in which it declines, if it does."""


def declines(text: str, extra: Sequence[str] = ()) -> bool:
    """Args: extra: refusals in wordings of one's own."""
    sentences = [each.strip() for each in re.split(r"[.!?;\n]+", folded_with(text, extra)) if each.strip()]
    if any(patterns("compliance_patterns").search(each) for each in sentences):
        return False
    return is_refusal(text, extra) or any(patterns("decline_patterns").search(each) for each in sentences[:_BEGINNING])
