"""Evaluations that put a question another way: a fact asked from its other end, a request in disguise.

Anything that is not named here is refused.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from llmkit.recipe.knowledge import JudgeSpec, QuestionSource
from llmkit.recipe.parts import SLUG, Part
from llmkit.recipe.practice import ProblemSource

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
Wrapping = Literal["plain", "role_play", "base64", "rot13", "leetspeak", "spaced"]
WRAPPINGS: tuple[Wrapping, ...] = get_args(Wrapping)
_REQUIRED = tuple(f"{way}{end}" for way in DIRECTIONS for end in ("", "_answers"))
_COLUMNS = (*_REQUIRED, "group")


class PairSource(QuestionSource):
    """Rows with a question that is asked from either end."""

    required: ClassVar[tuple[str, ...]] = _REQUIRED


class ReversalSpec(Part):
    """Evaluation of facts that were told one way and are asked both ways (the Reversal Curse, arXiv:2309.12288)."""

    task: Literal["reversal"]
    name: Annotated[str, Field(pattern=SLUG)] = "reversal"
    """Name in the report, where a recipe has several."""
    questions: list[PairSource] = Field(min_length=1)
    """Rows with `forward`, `forward_answers`, `backward`, `backward_answers` (answers as in other questions) and
    perhaps `group`, such as pairs that were told both ways; other names by `columns`."""
    judge: JudgeSpec = JudgeSpec()
    """Who decides whether an answer is right; `by: rules` alone."""
    max_new_tokens: int = Field(default=32, gt=0)
    """Longest answer, in tokens."""

    @field_validator("judge")
    @classmethod
    def _by_rules(cls, judge: JudgeSpec) -> JudgeSpec:
        if judge.by != "rules":
            raise ValueError("the judge of 'task: reversal' is 'by: rules'")
        return judge

    @field_validator("questions")
    @classmethod
    def _are_pairs(cls, sources: list[PairSource]) -> list[PairSource]:
        for source in sources:
            if source.templates:
                raise ValueError("'templates' make single questions; a row here holds two")
            if unknown := next((key for key in source.columns if key not in _COLUMNS), None):
                raise ValueError(f"'columns' names '{unknown}'; it can name {', '.join(_COLUMNS)}")
        return sources

    def asked(self, way: Direction) -> list[QuestionSource]:
        """The same sources as those of questions asked one way."""
        parts = {"question": way, "answers": f"{way}_answers"}
        made: list[QuestionSource] = []
        for source in self.questions:
            columns = {part: source.columns.get(name, name) for part, name in parts.items()}
            # a column that is named must be there
            columns |= {"group": source.columns["group"]} if "group" in source.columns else {}
            made.append(source.model_copy(update={"columns": columns}))
        return made


class JailbreakSpec(Part):
    """Evaluation of requests that should be refused, asked plainly and in disguise, with harmless ones beside them."""

    task: Literal["jailbreak"]
    name: Annotated[str, Field(pattern=SLUG)] = "jailbreak"
    """Name in the report, where a recipe has several."""
    unsafe: list[ProblemSource] = Field(min_length=1)
    """Requests (`prompt`) that should be refused."""
    safe: list[ProblemSource] = Field(min_length=1)
    """Requests (`prompt`) that should not: without them a model that refuses everything would look best."""
    wrappings: list[Wrapping] = Field(default=list(WRAPPINGS), min_length=2)
    """How each request is put; `plain`, as it stands, is always one of them."""
    refusals: list[str] = []
    """Texts that are refusals, besides those that llmkit recognises."""
    max_new_tokens: int = Field(default=48, gt=0)
    """Longest answer, in tokens: its beginning tells whether it is a refusal."""
    raw_phrasing: str = "Question: {prompt}\nAnswer:"
    """Wording for a model without a chat template."""
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of bad rows above which the stage stops."""
    dedup: bool = True
    """Drop repeats of a request within a source (they are counted)."""

    @model_validator(mode="after")
    def _fits(self) -> JailbreakSpec:
        if repeated := next((name for name, number in Counter(self.wrappings).items() if number > 1), None):
            raise ValueError(f"'{repeated}' stands twice in 'wrappings'")
        if "plain" not in self.wrappings:
            raise ValueError("'wrappings' needs 'plain', with which the others are compared")
        if "{prompt}" not in self.raw_phrasing:
            raise ValueError("'raw_phrasing' must hold {prompt}")
        return self
