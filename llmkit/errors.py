"""Everything that llmkit raises on purpose.

LlmkitError                     exit code 1
├── UserError                   exit code 2: the recipe, the data or the machine must change
│   ├── RecipeError             every problem of a recipe at once
│   ├── DataError               a source that cannot be read or holds too many bad rows
│   ├── TemplateError           a chat template that cannot be trained on or does not match
│   ├── PreflightError          every problem that preflight found at once
│   ├── ModelError              a model or tokenizer that cannot be loaded or does not fit
│   └── RunError                a run directory that is locked, read-only, full or foreign
└── StageFailed                 a stage's worker died; carries its log and the command that resumes

The text of each reads `where: what; cure`, so that it can stand alone on a terminal.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it is, what it is, and how to mend it."""

    where: str
    what: str
    cure: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.cure}" if self.cure else text


class LlmkitError(Exception):
    """Base of all errors that llmkit raises on purpose."""

    exit_code = 1


class UserError(LlmkitError, ValueError):
    """The user can mend this; shown without a traceback, exit code 2."""

    exit_code = 2

    def __init__(self, where: str, what: str, cure: str = "") -> None:
        self.problems = [Problem(where, what, cure)]
        super().__init__(str(self.problems[0]))


class _ManyProblems(UserError):
    def __init__(self, problems: list[Problem]) -> None:
        self.problems = list(problems)
        ValueError.__init__(self, "\n".join(str(problem) for problem in problems))


class RecipeError(_ManyProblems):
    """All problems of a recipe, in the order of its lines."""


class PreflightError(_ManyProblems):
    """All problems that preflight found in the rows of a stage."""


class DataError(UserError):
    """A data source is missing, unreadable, empty or has too many bad rows."""


class TemplateError(UserError):
    """A chat template is missing, cannot be trained on, or differs from the input model's."""


class ModelError(UserError):
    """A model or tokenizer is missing, incomplete or does not fit its use."""


class RunError(UserError):
    """A run directory is locked, read-only, full, or belongs to another recipe."""


class StageFailed(LlmkitError):
    """A stage's worker ended badly; the message holds its last lines and how to go on."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)
