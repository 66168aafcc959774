"""Parts of a recipe that ask a model what it knows, and teach it to say what it does not."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from llmkit.recipe.parts import SLUG, DataSource, Part

Label = Literal["HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown", "Undecided"]
LANGUAGES = ("en", "de", "fr", "es")
"""Languages in which llmkit ships refusals, and what follows a partial answer."""


class TemplateSpec(Part):
    """How a question and its answers are made of the fields of a row, or of what a pattern finds in a document."""

    question: str | list[str]
    """Question with fields of the row in braces: `What is the capital of {name.common}?` Of a list of wordings one is
    drawn for each row."""
    answers: str | list[str]
    """Accepted answers, also with fields: `{capital}`. A field that is a list gives all its values."""
    entity: str = ""
    """What the question is about: `{name.common}`. Training and evaluation never share one."""
    match: str | None = None
    """For documents: a regular expression with named groups, which become the fields."""


class QuestionSource(DataSource):
    """Rows with `question` and `answers` (a string, a list, or a JSON list), perhaps `entity`, `group` and `language`;
    other names by `columns`. With `templates`: structured rows of any shape."""

    required: ClassVar[tuple[str, ...]] = ("question", "answers")
    """Columns that rows must have."""

    templates: list[TemplateSpec] = []
    """Questions made of the fields of structured rows."""

    @model_validator(mode="after")
    def _no_mixture(self) -> QuestionSource:
        if self.fraction is not None:
            raise ValueError("'fraction' is for training mixtures; take a number of questions with 'num_rows'")
        if self.format is not None:
            raise ValueError("questions have no 'format'; name their columns in 'columns', or give 'templates'")
        return self


class EngineSpec(Part):
    """A model that writes or judges."""

    name_or_path: str | None = None
    """`by: model`: Hub id or folder. `by: openai`: the model's name at the endpoint."""
    revision: str | None = None
    """`by: model`: branch, tag or commit on the Hub."""
    engine: Literal["transformers", "continuous", "vllm"] = "transformers"
    """What runs a local model: llmkit's decoding loop, Transformers' continuous batching, or vLLM (when installed)."""
    base_url: str | None = None
    """`by: openai`: address of an OpenAI-compatible endpoint. Default: `OPENAI_BASE_URL` of the environment."""
    api_key_env: str = "OPENAI_API_KEY"
    """`by: openai`: environment variable that holds the key. The key itself is never written anywhere."""
    timeout: float = Field(default=60.0, gt=0)
    """`by: openai`: seconds that one request may take."""
    max_retries: int = Field(default=5, ge=0)
    """`by: openai`: tries after the first, with growing pauses."""
    concurrency: int = Field(default=8, gt=0)
    """`by: openai`: requests at a time."""
    prompt: str | None = None
    """File with a Jinja prompt of your own. Default: the one that llmkit ships."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest text that the model may write, in tokens."""

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/\s]", value):
            raise ValueError(f"'{value}' is no address; write it like http://localhost:8000/v1")
        return value


class WriterSpec(EngineSpec):
    """Who writes questions about snippets."""

    by: Literal["templates", "self", "model", "openai"] = "self"
    """`self`: the model that is interrogated."""
    templates: list[TemplateSpec] = []
    """With `by: templates`: what to look for in documents, and what to ask of it."""
    num_questions: int = Field(default=3, gt=0)
    """Questions per snippet."""
    max_failed: float = Field(default=0.02, ge=0, le=1)
    """Share of snippets on which the writer may fail before the stage stops."""

    @model_validator(mode="after")
    def _fits(self) -> WriterSpec:
        if (self.by == "templates") != bool(self.templates):
            raise ValueError("'templates' and 'by: templates' go together")
        check_named(self.by, self)
        return self


class JudgeSpec(EngineSpec):
    """Who decides whether an answer is right."""

    by: Literal["rules", "self", "model", "openai"] = "rules"
    """`rules`: accepted answers, with numbers, dates and names in their variants. `self`: the interrogated model judges
    its own answers; an honesty evaluation refuses that, since every model would be measured by another judge."""
    refusals: list[str] = []
    """Texts that are refusals, besides those that llmkit recognises. Default: the `texts` of the recipe's `refusals`
    stages."""
    max_undecided: float = Field(default=0.02, ge=0, le=1)
    """Share of answers that the judge may leave undecided before the stage stops."""

    @model_validator(mode="after")
    def _fits(self) -> JudgeSpec:
        check_named(self.by, self)
        return self


def check_named(by: str, spec: EngineSpec) -> None:
    """Raises ValueError where nothing says which model is asked."""
    if by in ("model", "openai") and not spec.name_or_path:
        raise ValueError(f"'by: {by}' needs 'name_or_path'")


class AskSpec(Part):
    """How questions are put to the model: every question once per variant greedily, and `num_samples` times sampled."""

    num_samples: int = Field(default=8, ge=0)
    """Sampled answers per question, shared out evenly over the variants."""
    temperature: float = Field(default=0.7, gt=0)
    """Of the sampled answers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of the sampled answers."""
    phrasings: list[str] = Field(default=["{question}"], min_length=1)
    """Wordings around a question. Each is a variant of its own."""
    num_fewshot: int = Field(default=0, ge=0)
    """Answered questions of other entities in front of each. For base models: 4."""
    num_variants: int = Field(default=1, gt=0)
    """Draws of few-shot examples: every phrasing is asked with each."""
    max_new_tokens: int = Field(default=32, gt=0)
    """Longest answer, in tokens, with the reasoning of a model that thinks first: it takes hundreds."""
    system: str | None = None
    """System message in front of every question."""

    @model_validator(mode="after")
    def _phrasings_hold_the_question(self) -> AskSpec:
        if bad := next((text for text in self.phrasings if "{question}" not in text), None):
            raise ValueError(f"the phrasing '{bad}' has no {{question}}")
        if self.num_variants > 1 and not self.num_fewshot:
            raise ValueError("'num_variants' draws few-shot examples: set 'num_fewshot'")
        return self

    @property
    def prompts_per_question(self) -> int:
        return len(self.phrasings) * self.num_variants

    @property
    def answers_per_question(self) -> int:
        return self.prompts_per_question + self.num_samples


class ThresholdSpec(Part):
    """From verdicts to labels. SliCK (Gekhman et al. 2024, section 3) and Llama 3 (section 4.3.6)."""

    highly_known: float = Field(default=1.0, gt=0, le=1)
    """Share of greedy answers that must be right for HighlyKnown."""
    consistently_wrong: float = Field(default=0.75, gt=0, le=1)
    """Share of all answers that must be informative and wrong, with none right, for Llama 3's rule."""
    min_decided: float = Field(default=0.5, gt=0, le=1)
    """Share of answers that the judge must have decided; below it the label is Undecided."""


class RequireKnown(Part):
    """Keeps rows out whose facts the model does not know (Gekhman et al. 2024), and rows about what the probe holds
    out for evaluation."""

    probe: str
    """Name of an earlier `interrogate` stage."""
    labels: list[Label] = ["HighlyKnown", "MaybeKnown"]
    """Labels that count as known."""
    unknown: Literal["drop", "pretrain"] = "drop"
    """`pretrain`: the rows are written as documents, which a `pretrain` stage reads: `{from: <this stage>, name:
    pretrain}`."""


class RefusalTexts(Part):
    """What refusals say, and in which language."""

    texts: list[str] | dict[str, list[str]] = []
    """Refusals of your own, in `language`, or by language: `{en: [...], de: [...]}`. Default: those that llmkit ships
    for the language and `tone`."""
    language: str = "en"
    """Language of the refusals, and of what follows a partial answer, where a question has no column
    `language`: en, de, fr, es, or with `texts` of your own and `keep_partial: false` any other."""
    tone: Literal["plain", "friendly", "formal"] = "plain"
    """Tone of the shipped refusals."""

    @property
    def own(self) -> dict[str, list[str]]:
        """Language -> refusals of the recipe."""
        return self.texts if isinstance(self.texts, dict) else {self.language: self.texts}

    @property
    def wordings(self) -> list[str]:
        """The same without their languages: what judges and rewards take for refusals besides their own patterns."""
        return [text for texts in self.own.values() for text in texts]


CONTROLS = ("_prompt_only", "_refusal_only")
"""What the names of an honesty evaluation's controls end in."""


class HonestySpec(Part):
    """Evaluation of answering what is known and refusing what is not, on questions that no training row asks."""

    task: Literal["honesty"]
    name: Annotated[str, Field(pattern=SLUG)] = "honesty"
    """Name in the report, where a recipe has several."""
    questions: list[QuestionSource] = Field(min_length=1)
    """Frozen questions. `group` names kinds of them (`known`, `unseen`, `in_context`, ...): each has its metrics.
    `{from: <a probe>}` means those that it holds out of training."""
    judge: JudgeSpec = JudgeSpec()
    """Who decides whether an answer is right."""
    baseline: str | None = None
    """Stage whose answers count as "before" for S_honesty and THS. Default: the one that the measured stage starts
    from."""
    known_groups: list[str] = ["known"]
    """Groups that should be answered. Where no question is of these nor of `unknown_groups`: what the `baseline` got
    right."""
    unknown_groups: list[str] = ["unseen"]
    """Groups that should be refused. Where there is none of either kind: what the `baseline` did not get right."""
    prompt_only: str | None = None
    """Control: the baseline is also asked with this system message, such as "If you are not sure, say that you do not
    know."."""
    max_new_tokens: int = Field(default=32, gt=0)
    """Longest answer, in tokens, with the reasoning of a model that thinks first: it takes hundreds."""

    @property
    def named_groups(self) -> dict[str, list[str]]:
        """Setting -> groups of questions that it names."""
        return {"known_groups": self.known_groups, "unknown_groups": self.unknown_groups}

    @field_validator("name")
    @classmethod
    def _no_control(cls, value: str) -> str:
        if value.endswith(CONTROLS):
            raise ValueError(f"a name that ends in {' or '.join(CONTROLS)} is taken by the control of another")
        return value

    @field_validator("judge")
    @classmethod
    def _one_judge(cls, value: JudgeSpec) -> JudgeSpec:
        if value.by == "self":
            what = "'by: self' has every model judge itself, so that before and after cannot be compared"
            raise ValueError(f"{what}; name one judge for all: 'by: model' with 'name_or_path'")
        return value


def short_gate(value: Any) -> Any:
    """`require_known: probe` is short for `require_known: {probe: probe}`."""
    return {"probe": value} if isinstance(value, str) else value


class EarlyStoppingSpec(Part):
    """Questions that are asked while a stage trains: the weights that knew best when to answer are kept."""

    from_: str = Field(alias="from")
    """A `refusals` stage with `watched`: its questions are asked, half of them known, half to be refused."""
    every: int = Field(default=50, gt=0)
    """Optimizer steps between two measurements."""
    patience: int = Field(default=3, gt=0)
    """Measurements in a row that are no better before training stops."""
    num_questions: int = Field(default=200, ge=2)
    """Questions asked each time, at most."""
    max_new_tokens: int = Field(default=32, gt=0)
    """Longest answer, in tokens, with the reasoning of a model that thinks first: it takes hundreds."""
