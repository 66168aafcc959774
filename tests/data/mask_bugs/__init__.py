"""Reported bugs of loss masks, chat templates and end tokens, each rebuilt small.

A case is a function that builds what was broken, shows it to llmkit and returns the texts of the problems found.
"""

from mask_bugs.cases import CASES, Case

# The modules register their cases.
from mask_bugs import in_rows, in_surroundings, in_templates  # noqa: F401  isort: skip

__all__ = ["CASES", "Case"]
