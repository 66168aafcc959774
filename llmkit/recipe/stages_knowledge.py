"""Stages that ask a model what it knows, and sort what it said."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from llmkit.recipe.knowledge import AskSpec, JudgeSpec, QuestionSource, RefusalTexts, ThresholdSpec, WriterSpec
from llmkit.recipe.parts import DataSource
from llmkit.recipe.stages import StageBase
from llmkit.recipe.tools import LookupSpec


class InterrogateStage(StageBase):
    """Asks the model questions without their documents, and labels each by how well the model knows its answer."""

    keeps_steps: ClassVar[bool] = True
    kind: Literal["interrogate"]
    questions: list[QuestionSource] = []
    """Questions with accepted answers, or structured rows with `templates`."""
    documents: list[DataSource] = []
    """Documents that the model was trained on; `writer` asks about snippets of them."""
    writer: WriterSpec = WriterSpec()
    """Who writes the questions about documents."""
    snippet_chars: int = Field(default=800, ge=80)
    """Longest snippet of a document, in characters; it is cut between sentences."""
    num_snippets: int | None = Field(default=None, gt=0)
    """Use this many snippets (drawn with the seed). Default: all."""
    ask: AskSpec = AskSpec()
    """How the questions are asked."""
    judge: JudgeSpec = JudgeSpec()
    """Who decides whether an answer is right."""
    thresholds: ThresholdSpec = ThresholdSpec()
    """From verdicts to labels."""
    engine: Literal["transformers", "continuous", "vllm"] = "transformers"
    """What runs the model: llmkit's decoding loop, Transformers' continuous batching, or vLLM (when installed)."""
    batch_size: int = Field(default=256, gt=0)
    """Answers that are written at a time."""
    heldout: float = Field(default=0.2, ge=0, lt=1)
    """Share of entities that are kept out of training: `{from: probe, name: heldout}` evaluates on them."""

    @model_validator(mode="after")
    def _has_input(self) -> InterrogateStage:
        if not (self.questions or self.documents):
            raise ValueError("give 'questions' or 'documents'")
        return self


class RefusalsStage(StageBase):
    """Rows that teach a model to answer what it knows and refuse what it does not, from one or more probes."""

    loads_model: ClassVar[bool] = False
    kind: Literal["refusals"]
    probes: list[str] = Field(min_length=1)
    """Interrogations of the model that is to be trained; later ones (after an honest SFT) show what became known."""
    refuse: Literal["unknown", "consistently_wrong"] = "unknown"
    """SliCK's Unknown, or Llama 3's rule: informative and wrong, always."""
    maybe_known: Literal["answer", "leave_out", "refuse"] = "leave_out"
    """What becomes of questions that are answered right at times."""
    weakly_known: Literal["answer", "leave_out", "refuse"] = "leave_out"
    """What becomes of questions that are never answered right greedily, but at times when sampled."""
    known_ratio: float = Field(default=1.0, ge=0)
    """Rows with answers per row with a refusal. 0: refusals only (a control)."""
    num_rows: int | None = Field(default=None, gt=0)
    """Rows in all. Default: as many as the smaller side allows."""
    refusals: RefusalTexts = RefusalTexts()
    """What the refusals say."""
    keep_partial: bool = True
    """Where the model says something right but not the answer, keep that instead of a refusal."""
    conflict_similarity: float = Field(default=0.9, gt=0, le=1)
    """Questions at least this alike with opposite labels are a conflict, and both are left out (CRaFT)."""
    balance: bool = True
    """Take both sides evenly from each kind of wording, so that the wording does not give the label away."""
    relabel: Literal["none", "random"] = "none"
    """`random`: labels are shuffled (a control)."""
    watched: float = Field(default=0.0, ge=0, lt=1)
    """Share of entities that are kept out of the rows: `early_stopping` asks about them while a stage trains."""
    search_tool: str = "search"
    """Name of the tool in `{from: ..., name: tool_calls}`: rows that call it instead of refusing."""
    lookup: LookupSpec | None = None
    """Make these rows whole: the call, what it really finds, and an answer from that or the word that nothing was
    found."""


class SearchIndexStage(StageBase):
    """An index of documents for the tool `search`: `{name: search, from: <this stage>}`."""

    loads_model: ClassVar[bool] = False
    kind: Literal["search_index"]
    documents: list[DataSource] = Field(min_length=1)
    """What can be found. `columns` may name the text, the title and the id: `{text: body, title: heading}`."""
    passage_chars: int = Field(default=800, ge=100)
    """Longest passage, in characters."""
    overlap: int = Field(default=100, ge=0)
    """Characters of a passage that the next one repeats."""

    @model_validator(mode="after")
    def _fits(self) -> SearchIndexStage:
        if self.overlap >= self.passage_chars:
            raise ValueError(f"'overlap' ({self.overlap}) must be less than 'passage_chars' ({self.passage_chars})")
        if any(source.fraction is not None for source in self.documents):
            raise ValueError("'fraction' is for training mixtures; take a number of documents with 'num_rows'")
        return self
