"""What a finished stage says of itself. Written last: if it exists, the stage finished.

Every later reader (next stage, report, push) reads manifests and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from llmkit.artifacts.files import read_json, write_json
from llmkit.errors import RunError

FILE = "manifest.json"

_CONTROL = "control"


def is_control(stage: str) -> bool:
    """Whether a stage, by its name, only shows what happens without the method: it is nobody's final model."""
    return stage.startswith(_CONTROL)


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EvalRow(Record):
    """One metric of one task on one model, with a 95 % interval."""

    stage: str
    """Stage whose model was measured; `base` for the recipe's model."""
    task: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    num_samples: int
    delta: float | None = None
    """Paired difference to the same documents at `delta_from`, with its 95 % interval."""
    delta_low: float | None = None
    delta_high: float | None = None
    delta_from: str | None = None


class Measure(Record):
    """Loss on one held-out set."""

    loss: float
    """Mean negative log-likelihood per trained token, in nats."""
    perplexity: float
    bits_per_byte: float | None = None
    """Sum of negative log-likelihood in bits over the bytes of the text: comparable across tokenizers."""
    low: float | None = None
    high: float | None = None
    """95 % interval of `loss`, by bootstrap over rows."""
    num_tokens: int
    num_rows: int


class Heldout(Record):
    before: Measure | None = None
    after: Measure | None = None


class SourceCount(Record):
    """What was read from one data source."""

    source: str
    num_read: int
    num_rejected: int = 0
    num_duplicates: int = 0
    num_gated: int = 0
    """Rows that `require_known` kept out because the model does not know their facts."""
    num_heldout: int = 0
    """Rows that `require_known` kept out because the probe holds them out for evaluation."""
    num_not_probed: int = 0
    """Rows that `require_known` let pass because the probe did not ask about them."""
    num_used: int
    sha256: str
    """Hash of the rows used, in order."""


class DataSummary(Record):
    sources: list[SourceCount] = []
    num_rows: int = 0
    num_tokens: int = 0
    num_trained_tokens: int = 0
    num_truncated: int = 0
    num_spelling_tokens: int = 0
    """Rows whose text spells out special tokens; they are trained as plain text."""
    num_packed_rows: int | None = None
    length_quantiles: dict[str, int] = {}
    """Tokens per row at min, p50, p90, p99, max."""
    rejected_file: str | None = None


class Sample(Record):
    """One thing for people to read: what the model was given and what it wrote."""

    prompt: str
    completion: str
    label: str = ""


class ShownAnswer(Record):
    text: str
    verdict: str
    temperature: float


class ProbeExample(Record):
    """One question with all that the model said to it."""

    question: str
    answers: list[str]
    label: str
    group: str = ""
    shown: list[ShownAnswer]


class ProbeSummary(Record):
    """What an interrogation found."""

    num_questions: int
    num_answers: int
    labels: dict[str, int]
    """SliCK's label -> number of questions."""
    by_group: dict[str, dict[str, int]] = {}
    """The questions' own `group` -> label -> number."""
    num_consistently_wrong: int = 0
    """By Llama 3's rule."""
    num_undecided: int = 0
    """Answers that the judge left undecided."""
    moved: dict[str, int] = {}
    """With an earlier probe of the same questions: "Unknown -> HighlyKnown" -> number."""
    examples: list[ProbeExample] = []


class Curve(Record):
    """A line of a picture, such as risk against coverage."""

    name: str
    x: str
    y: str
    points: list[tuple[float, float]]


class Published(Record):
    """A repository on the Hub, as it was after a push."""

    repo_id: str
    repo_type: str
    revision: str
    tag: str
    commit: str
    url: str


class Parent(Record):
    stage: str
    fingerprint: str


class Manifest(Record):
    format: int = 1
    stage: str
    kind: str
    fingerprint: str
    parent: Parent | None = None
    model_dir: str | None = None
    """Folder of the model made here, relative to the stage's folder."""
    adapter_dir: str | None = None
    data_dir: str | None = None
    """Folder of rows made here, for `data: [{from: ...}]`."""
    chat_template_sha256: str | None = None
    stop_token: str | None = None
    settings: dict[str, Any] = {}
    """The resolved stage."""
    metrics: dict[str, float] = {}
    """Plain numbers of this stage: final loss, steps, ..."""
    heldout: dict[str, Heldout] = {}
    evals: list[EvalRow] = []
    probe: ProbeSummary | None = None
    curves: list[Curve] = []
    published: list[Published] = []
    data: DataSummary | None = None
    samples: list[Sample] = []
    warnings: list[str] = []
    seconds: float = 0.0
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    world_size: int = 1
    device: str = "cpu"
    versions: dict[str, str] = {}
    created: str = ""
    """UTC, ISO 8601."""


def write_manifest(stage_dir: Path, manifest: Manifest) -> None:
    write_json(stage_dir / FILE, manifest.model_dump())


def read_manifest(stage_dir: Path) -> Manifest | None:
    """The manifest of a finished stage, or None if it did not finish."""
    path = stage_dir / FILE
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate(read_json(path))
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            str(path), f"is not a manifest of this version ({reason})", f"delete {stage_dir} to run it again"
        ) from None
