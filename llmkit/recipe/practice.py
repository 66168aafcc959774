"""Parts of the stages that practise: problems, rewards, how prompts are chosen, and what is watched.

The docstring under a field is its documentation: `llmkit schema` and editors show it.
Anything that is not named here is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from llmkit.recipe.parts import SLUG, DataSource, Part

Scalar = str | int | float | bool


class ProblemSource(DataSource):
    """Problems with checkable answers. A row needs `prompt` (a text, or messages); its other columns (`answer`,
    `solution`, `level`, ...) are kept for the rewards."""

    system: str | None = None
    """System message in front of every prompt."""
    phrasing: str = "{prompt}"
    """Wording around a prompt, for example to say in which form the answer is to be given."""
    answer_after: str | None = None
    """Mark in `solution` behind which the answer stands (`####` in GSM8K): that becomes `answer`."""
    set: dict[str, Scalar] = {}
    """Columns that every row of this source gets, for example `{verifier: math}` for a reward's `when`."""

    @model_validator(mode="after")
    def _fits_problems(self) -> ProblemSource:
        if self.format is not None:
            raise ValueError("problems have no 'format'; name their columns in 'columns'")
        if "{prompt}" not in self.phrasing:
            raise ValueError("'phrasing' must hold {prompt}")
        return self


class RewardSpec(Part):
    """One reward function."""

    name: str | None = None
    """A reward that llmkit ships; `llmkit rewards` lists them."""
    path: str | None = None
    """`package.module:function` of your own, called as TRL calls reward functions."""
    args: dict[str, Any] = {}
    """Keyword arguments: of a shipped reward its options, of your own function they are passed at each call."""
    weight: float = 1.0
    """Factor in the sum of rewards. 0: only reported."""
    when: dict[str, Scalar] = {}
    """Rows that it scores: those whose columns have these values. Default: all."""
    correctness: bool | None = None
    """Whether a score of 1 means that the problem is solved: this decides which prompts are too easy or too hard, and
    what is reported as accuracy. Default: as the shipped reward says; for your own, no."""

    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds that a function of your own may take for one batch of answers; then the stage ends. Default: 300."""

    @model_validator(mode="after")
    def _one_origin(self) -> RewardSpec:
        if (self.name is None) == (self.path is None):
            raise ValueError("give exactly one of 'name' and 'path'")
        if self.path is not None and ":" not in self.path:
            raise ValueError("'path' is package.module:function")
        if self.path is None and self.timeout is not None:
            raise ValueError("'timeout' is for a 'path'; llmkit's own rewards limit themselves, some by 'args.timeout'")
        return self

    @property
    def label(self) -> str:
        """How it is called in curves and reports."""
        assert self.name is not None or self.path is not None
        return self.name or (self.path or "").rpartition(":")[2]


def short_rewards(value: Any) -> Any:
    """`rewards: [exact]` is short for `rewards: [{name: exact}]`, or for a `path` where it holds a colon."""
    if not isinstance(value, list):
        return value
    short = [{"path" if ":" in item else "name": item} if isinstance(item, str) else item for item in value]
    return short


Rewards = Annotated[list[RewardSpec], BeforeValidator(short_rewards), Field(min_length=1)]


class FilterSpec(Part):
    """A look at every problem before training: those that are always or never solved teach nothing."""

    num_samples: int = Field(default=8, gt=1)
    """Answers per problem."""
    keep: tuple[float, float] = (0.05, 0.95)
    """Lowest and highest share of right answers with which a problem is kept."""

    @model_validator(mode="after")
    def _ordered(self) -> FilterSpec:
        if not 0 <= self.keep[0] <= self.keep[1] <= 1:
            raise ValueError("'keep' is a lowest and a highest share, 0 to 1")
        return self


class CurriculumSpec(Part):
    """Easy levels first: the next one opens when the last open one is solved often enough."""

    column: str = "level"
    """Column that holds a problem's level, a number."""
    unlock: float = Field(default=0.6, gt=0, lt=1)
    """Share of right answers at the highest open level that opens the next."""


class SamplingSpec(Part):
    """Which prompts are practised."""

    resample: int = Field(default=0, ge=0)
    """Rounds in which groups whose answers are all right or all wrong are replaced by groups of other prompts (dynamic
    sampling, DAPO section 3.2). 0: never."""
    screen: int | None = Field(default=None, gt=1)
    """With `resample`: so many answers of a group are sampled first, and where they are all right or all wrong the
    group is replaced before the rest of it is sampled (SPEED, Zhang et al. 2025, arXiv 2506.09016, section 4)."""
    filter: FilterSpec | None = None
    """Leave out problems that are too easy or too hard before training begins. Those that no reward on correctness
    scores stay: nothing says how hard they are."""
    curriculum: CurriculumSpec | None = None
    """Open levels one after the other. Problems that no reward on correctness scores need no level, and are always
    practised."""

    @model_validator(mode="after")
    def _screens_for_others(self) -> SamplingSpec:
        if self.screen is not None and not self.resample:
            raise ValueError("'screen' has no effect without 'resample': set resample: 3, or leave it out")
        return self


class MeasureSpec(Part):
    """What is measured on the held-out problems before, while and after training."""

    num_samples: int = Field(default=8, ge=0)
    """Sampled answers per problem before and after, for pass@k and maj@k. 0: greedy answers alone."""
    every: float = Field(default=0.2, gt=0, le=1)
    """Share of the steps after which greedy answers are measured while training."""
    num_problems: int = Field(default=200, gt=0)
    """At most so many problems of each held-out set are asked while training."""


class Limits(Part):
    """A range in which a curve should stay."""

    min: float | None = None
    """Lowest value."""
    max: float | None = None
    """Highest value."""
    action: Literal["warn", "stop", "ignore"] = "warn"
    """`stop`: end the stage with the answers that are being trained on; its model is the one of that step."""
    patience: int = Field(default=3, gt=0)
    """Logged values in a row that must be out of range."""


class ProblemsSpec(Part):
    """Evaluation on problems with checkable answers: greedy accuracy, pass@k and maj@k."""

    task: Literal["problems"]
    name: Annotated[str, Field(pattern=SLUG)] = "problems"
    """Name in the report, where a recipe has several."""
    problems: list[ProblemSource] = Field(min_length=1)
    """Problems that no training row holds."""
    rewards: Rewards = [RewardSpec(name="exact")]
    """Who decides whether an answer is right."""
    num_samples: int = Field(default=0, ge=0)
    """Sampled answers per problem, for pass@k and maj@k. 0: the greedy answer alone."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the sampled answers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of the sampled answers."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest answer, in tokens; one that is cut off is wrong."""
    prefill: str = ""
    """Text with which every answer begins. "The answer is" leaves the model no tokens to think before it answers; some
    " ." in front of that are tokens without content (Pfau et al. 2024, arXiv 2404.15758)."""
    thinking_budgets: list[Annotated[int, Field(ge=0)]] = []
    """Also measure the greedy accuracy with at most so many tokens of reasoning, for templates that have a span for it:
    `[0, 16, 64]`. They come on top of `max_new_tokens`."""
    raw_phrasing: str = "Question: {prompt}\nAnswer:"
    """Wording for a model without a chat template."""
    by: str | None = None
    """Column whose values are reported one by one, such as `level`."""
    max_truncated: float = Field(default=0.0, ge=0, le=1)
    """Share of problems whose prompt may leave no room for an answer before the stage stops; they are left out."""
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of bad rows above which the stage stops."""
    dedup: bool = True
    """Drop repeats of a prompt within a source."""

    @model_validator(mode="after")
    def _holds_the_prompt(self) -> ProblemsSpec:
        if "{prompt}" not in self.raw_phrasing:
            raise ValueError("'raw_phrasing' must hold {prompt}")
        return self

    @model_validator(mode="after")
    def _can_be_bounded(self) -> ProblemsSpec:
        if self.thinking_budgets and self.prefill:
            raise ValueError("'thinking_budgets' has no place beside 'prefill', behind which nothing is thought")
        if len(set(self.thinking_budgets)) < len(self.thinking_budgets):
            raise ValueError("'thinking_budgets' names a budget twice")
        return self
