"""Whether rows that were made from a probe fit the model that a stage starts from."""

from __future__ import annotations

from pathlib import Path

from llmkit.artifacts.manifest import read_manifest
from llmkit.data.gate import gates
from llmkit.knowledge.probe import ProbeInfo, check_identity, read_probe
from llmkit.recipe.schema import TrainStage
from llmkit.stages.common import Worker
from llmkit.stages.engines import model_identity


def check_probes(worker: Worker, infos: list[ProbeInfo], where: str) -> None:
    """One of the probes must have asked the stage's input model; the others show it at other times.

    Raises:
        DataError: none did; names what differs.
    """
    model = model_identity(worker.file)
    info = next((info for info in infos if info.model == model), infos[0])
    parent = read_manifest(Path(worker.file.parent)) if worker.file.parent else None
    template = parent.chat_template_sha256 if parent else info.chat_template_sha256
    check_identity(info, model_fingerprint=model, template_sha=template, where=where)


def check_gates(worker: Worker, stage: TrainStage) -> None:
    """As `check_probes`, for the probes that `require_known` names."""
    for gate in gates(stage.data):
        folder = worker.file.data_stages.get(gate.probe)
        if folder is not None:
            where = f"stage '{stage.name}': require_known: {gate.probe}"
            check_probes(worker, [read_probe(Path(folder))[0]], where)
