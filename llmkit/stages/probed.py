"""Which model a probe asked, and whether rows that were made from it fit the model that a stage starts from."""

from __future__ import annotations

from pathlib import Path

from llmkit.artifacts.manifest import read_manifest
from llmkit.artifacts.stagefile import StageFile
from llmkit.data.gate import gates
from llmkit.knowledge.probe import ProbeInfo, check_identity, read_probe
from llmkit.modeling.source import resolve
from llmkit.plan.files import digest_of_model
from llmkit.recipe.stages import TrainStage
from llmkit.stages.common import Worker


def model_identity(file: StageFile) -> str:
    """What a probe remembers of the model that it asked: fingerprint of the stage that made it, or for a base model the
    digest of its files, or its Hub id and revision."""
    manifest = read_manifest(Path(file.parent)) if file.parent else None
    if manifest is not None:
        return manifest.fingerprint
    assert file.input_model is not None
    folder = Path(resolve(file.input_model))
    return digest_of_model(folder) if folder.is_dir() else f"hub:{file.input_model}@{file.model.revision or 'main'}"


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
