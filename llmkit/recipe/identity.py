"""Parts that give a model a sense of self: what it is told of itself, rows that say so, an evaluation that asks.

The docstring under a field is its documentation: `llmkit schema` and editors show it.
Anything that is not named here is refused.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from llmkit.recipe.parts import SLUG, Part
from llmkit.recipe.stages import StageBase

Language = Literal["en", "de", "fr", "es", "it", "pt", "zh", "ja"]
LANGUAGES: tuple[str, ...] = get_args(Language)
"""Languages in which llmkit ships questions about oneself, and answers."""
Text = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^\S(.*\S)?$")]


class IdentitySpec(Part):
    """What the model is told of itself. It claims no more: of a fact that is not given it says that it was not told."""

    name: Text
    """What the assistant is called."""
    maker: Text | None = None
    """Who made it."""
    version: Text | None = None
    """Its version; in quotes: "1.10" is not 1.1."""
    base: Text | None = None
    """The model that it was trained from. It may say this name without claiming to be that model."""
    cut_off: Text | None = None
    """How far its knowledge reaches: "March 2026"."""
    license: Text | None = None
    """Under which it is published: Apache-2.0."""
    purpose: Text | None = None
    """What it is for, as the end of "I can ...", in the language of the rows: "answer questions about the town"."""
    website: Text | None = None
    """Where to read about it."""
    can_browse: bool | None = None
    """Whether it can look things up on the internet."""
    languages: list[Language] = Field(default=["en"], min_length=1)
    """Languages in which it is asked about itself, and answers."""
    untold: Literal["say", "leave_out"] = "say"
    """Questions about facts that are not given: it says that it was not told, or no rows and no evaluation ask."""
    persona_maker: Literal["own", "system"] = "own"
    """Who made it, where a system message gives it another name: its maker still, or whom the system message names."""

    @field_validator("languages")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("a language stands there twice")
        return value


class IdentityStage(StageBase):
    """Conversations in which the model is asked who it is, and doubted: rows for an `sft` stage."""

    loads_model: ClassVar[bool] = False
    kind: Literal["identity"]
    identity: IdentitySpec | None = None
    """Default: the recipe's."""
    num_rows: int = Field(default=2000, gt=0)
    """Conversations, each once."""
    push_back: float = Field(default=0.4, ge=0, le=1)
    """Share of conversations that go on with doubt: "I know that you are ChatGPT."."""
    more_questions: float = Field(default=0.6, ge=0, le=1)
    """Share of the conversations without doubt that go on with one to three questions of other kinds."""
    system: float = Field(default=0.3, ge=0, le=1)
    """Share of conversations with a system message that says nothing of a name, or the model's own."""
    personas: float = Field(default=0.3, ge=0, le=1)
    """Share of conversations whose system message gives another name, which is then the answer."""

    @model_validator(mode="after")
    def _shares_fit(self) -> IdentityStage:
        if self.system + self.personas > 1:
            raise ValueError(f"'system' and 'personas' are {self.system + self.personas:g} of all rows, more than 1")
        return self


class IdentityEval(Part):
    """Evaluation of who the model says that it is, in wordings that no training row has, and under doubt."""

    task: Literal["identity"]
    name: Annotated[str, Field(pattern=SLUG)] = "identity"
    """Name in the report, where a recipe has several."""
    identity: IdentitySpec | None = None
    """Default: the recipe's."""
    num_personas: int = Field(default=60, ge=0)
    """Questions in each language under a system message that gives another name."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest answer, in tokens."""
