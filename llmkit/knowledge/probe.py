"""A finished probe: its rows, and of which model it speaks.

data/probe.jsonl     all questions, as ProbeRow
data/heldout.jsonl   those of held-out entities: {question, answers, entity, group, label, document}
data/probe.json      ProbeInfo
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmkit.artifacts.files import read_json, write_json
from llmkit.artifacts.rundir import StageDir
from llmkit.errors import DataError, RunError
from llmkit.knowledge.records import ProbeRow
from llmkit.knowledge.store import read_rows

ROWS, HELDOUT, INFO = "probe.jsonl", "heldout.jsonl", "probe.json"


@dataclass(frozen=True)
class ProbeInfo:
    """Which model was asked, and how."""

    model: str
    """Fingerprint of the stage whose model was asked, or digest of the base model."""
    input_model: str
    """Folder or Hub id, for people."""
    chat_template_sha256: str | None
    seed: int
    """Of the samples, and of the sides of entities that no earlier probe had. Not compared: probes that meet in recipes
    have one seed (`llmkit.recipe.splits`), and one that only asks again keeps the sides, whatever its own."""
    ask: dict[str, Any] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    """Of the interrogation itself."""


def write_info(stage_dir: Path, info: ProbeInfo) -> None:
    write_json(StageDir(stage_dir).data / INFO, asdict(info))


def is_probe(stage_dir: Path) -> bool:
    return (StageDir(stage_dir).data / INFO).is_file()


def read_probe(stage_dir: Path) -> tuple[ProbeInfo, Iterator[ProbeRow]]:
    """What the probe says of itself, and its rows one at a time.

    Raises:
        DataError: the stage left no probe.
        RunError: its files are damaged.
    """
    data = StageDir(stage_dir).data
    if not is_probe(stage_dir) or not (data / ROWS).is_file():
        raise DataError(str(data), "holds no finished probe", "name a stage of kind 'interrogate', and run it first")
    try:
        info = ProbeInfo(**read_json(data / INFO))
    except (TypeError, ValueError) as error:
        what = f"is not of this version ({error})"
        raise RunError(str(data / INFO), what, "run the interrogation again") from None
    return info, _rows(data / ROWS)


def _rows(path: Path) -> Iterator[ProbeRow]:
    for number, row in enumerate(read_rows(path), start=1):
        try:
            yield ProbeRow.from_json(row)
        except (TypeError, KeyError) as error:
            what = f"is no row of a probe ({error})"
            raise RunError(f"{path}:{number}", what, "run the interrogation again") from None


def check_identity(info: ProbeInfo, *, model_fingerprint: str, template_sha: str | None, where: str) -> None:
    """A probe only speaks of the model that it asked. That probes split entities alike is seen to by the recipe
    (`llmkit.recipe.splits`).

    Args:
        model_fingerprint: of the stage whose model is the input, or digest of the base model.
        template_sha: of that model's chat template; None: it has none.
        where: for the error, such as "stage 'honest': require_known: probe".

    Raises:
        DataError: names each part that differs.
    """
    pairs = {"model": (info.model, model_fingerprint), "chat template": (info.chat_template_sha256, template_sha)}
    differ = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if not differ:
        return
    words = [f"another {name} ({_short(asked)}; here {_short(here)})" for name, (asked, here) in differ.items()]
    what = f"the probe was made with {' and '.join(words)}; it asked {info.input_model}"
    raise DataError(where, what, f"interrogate this stage's input model, with the same {', '.join(differ)}")


def _short(value: str | None) -> str:
    return "none" if value is None else value[:12]
