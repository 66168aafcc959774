"""What a stage's result depends on, part by part, and the hash over all parts.

A finished stage whose parts are unchanged is skipped. In: the settings, the input model or its stage's fingerprint,
the content of data files, the Hub ids and revisions, the chat template, and the source files of the rooms that do
the work. Out, because they do not change the result: names, how the batch is cut over processes and steps, which
machine runs it (`launch`), and how often progress is saved and shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmkit.artifacts.files import sha256_of
from llmkit.plan.code import code_of, sources
from llmkit.plan.files import (
    digest,
    digest_of,
    digest_of_model,
    digest_of_package,
    digest_of_source,
    resolve_model,
    template_file,
)
from llmkit.plan.measured import measured
from llmkit.recipe import reads
from llmkit.recipe.hub import PushStage
from llmkit.recipe.parts import ModelSpec
from llmkit.recipe.schema import EvaluateStage
from llmkit.recipe.stages import BestOfNStage, GrpoStage, SampledStage, TunedStage
from llmkit.recipe.stages_preference import RankStage, RlhfStage, RolloutStage
from llmkit.recipe.tools import FunctionSpec, McpSpec, SearchSpec

_RANKED_BY = {
    "judge": (("asked", "engines", "rank_by_judge"), ("chat", "modeling", "generation")),
    "labeller": (("preferring",), ("rewards",)),
}
"""Who ranks -> the files of `stages/` and the rooms whose code that takes besides."""
_GUARD_JUDGE = (("engines", "rank_judge"), ())
"""The same of a guard that asks a model; rooms are those of the stage."""
# of these the content counts, not the names; how many questions are asked at once changes no answer
_NOT_SETTINGS = {
    "name", "from", "launch", "data", "evals", "questions", "documents", "probes", "rollouts", "models", "batch_size",
}  # fmt: skip
LOGGING = frozenset({"logging_steps", "logging_strategy", "logging_first_step"})
NOT_RESULTS = LOGGING | frozenset(
    {
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
        "activation_offloading",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "log_level",
        "report_to",
        "save_steps",
        "save_strategy",
        "save_total_limit",
    }
)
"""Trainer options that change speed, memory or output, not the trained weights."""


@dataclass(frozen=True)
class Upstream:
    """Fingerprints of the steps that this one reads."""

    parent: str | None = None
    data: dict[str, str] = field(default_factory=dict)
    baselines: dict[str, str] = field(default_factory=dict)
    compare_with: str | None = None
    rankings: Path | None = None
    """Where people's rankings for the step are kept."""


def fingerprint_of(inputs: dict[str, str]) -> str:
    return sha256_of(inputs)


def inputs_of(stage: Any, model: ModelSpec, base: str | None, upstream: Upstream) -> dict[str, str]:
    """Named parts of the fingerprint. `base`: folder or Hub id, when the recipe's model is the stage's input."""
    parts = {**_settings(stage), **code_of(stage.kind), **_read(stage, upstream), **_engines(stage)}
    if isinstance(stage, EvaluateStage):
        parts |= measured(stage, upstream.data, upstream.baselines)
        parts["compare_with"] = upstream.compare_with or ""
    if isinstance(stage, TunedStage) and stage.early_stopping is not None:
        parts |= sources(("early_stopping",), ("knowledge", "generation"))
    if upstream.parent is not None:
        parts["input model"] = upstream.parent
    parts |= _rewards(stage) | _ranked(stage, upstream) | _tools(stage, upstream)
    if isinstance(stage, PushStage):
        parts |= {f"stage {name}": fingerprint for name, fingerprint in upstream.data.items()}
    parts |= _model(model, base, stage.kind)
    return parts


def _settings(stage: Any) -> dict[str, str]:
    data = stage.model_dump(mode="json", by_alias=True)
    trainer = data.pop("trainer", {})
    # named sources where a stage trains; the share of an interrogation is a setting
    if isinstance(data.get("heldout"), dict):
        del data["heldout"]
    settings = {key: value for key, value in data.items() if key not in _NOT_SETTINGS}
    # a monitor that ends a stage counts logged values
    counted = LOGGING if any(each["action"] == "stop" for each in data.get("monitors", {}).values()) else frozenset()
    settings |= {f"trainer.{key}": value for key, value in trainer.items() if key not in NOT_RESULTS - counted}
    return {key: json.dumps(value, sort_keys=True) for key, value in settings.items()}


def _read(stage: Any, upstream: Upstream) -> dict[str, str]:
    """Settings and content of all data sources, and the probes."""
    parts = {}
    for loc, source in reads.sources(stage):
        name = ".".join(map(str, loc))
        parts[name] = source.model_dump_json(by_alias=True, exclude_defaults=True, exclude={"revision"})
        content = upstream.data.get(source.from_, "") if source.from_ else digest_of_source(source)
        parts[f"{name} content"] = content
    parts |= {".".join(map(str, loc)): upstream.data.get(name, "") for loc, name in reads.probes(stage)}
    return parts


def _engines(stage: Any) -> dict[str, str]:
    """What judges and writers are made of: prompt files of one's own, and models in folders of this machine."""
    parts = {}
    for engine in reads.engines(stage):
        if engine.prompt is not None:
            parts[f"prompt {engine.prompt}"] = digest(Path(engine.prompt).expanduser())
        if engine.by == "model" and engine.name_or_path is not None:
            folder = Path(resolve_model(engine.name_or_path))
            parts |= {f"weights {engine.name_or_path}": digest_of_model(folder)} if folder.is_dir() else {}
    return parts


def _rewards(stage: Any) -> dict[str, str]:
    """Content of the packages that hold reward functions of one's own."""
    own = {spec.path for _, spec in reads.rewards(stage) if spec.path is not None}
    own |= {spec.path for spec in reads.labellers(stage)}
    return {f"code of {path}": digest_of_package(path.partition(":")[0]) for path in sorted(own)}


def _ranked(stage: Any, upstream: Upstream) -> dict[str, str]:
    """The stages that a stage ranks or is scored by, and rankings that are there already."""
    if isinstance(stage, RankStage):
        files = {"human": upstream.rankings, "file": Path(stage.path).expanduser() if stage.path else None}
        file = files.get(stage.by)
        parts = {"rollouts": upstream.data.get(stage.rollouts, "")}
        parts |= sources(*_RANKED_BY.get(stage.by, ((), ())))
        return parts | ({"rankings": digest(file)} if file is not None else {})
    if isinstance(stage, RolloutStage):
        return {f"model {name}": upstream.data.get(name, "") for name in stage.models}
    if isinstance(stage, BestOfNStage) and stage.reward_model is not None:
        found = {".".join(map(str, loc)): upstream.data.get(name, "") for loc, name in reads.reward_models(stage)}
        return found | sources(("preferring",), ("preference",))
    if isinstance(stage, RlhfStage):
        parts = {".".join(map(str, loc)): upstream.data.get(name, "") for loc, name in reads.reward_models(stage)}
        return parts | (sources(*_GUARD_JUDGE) if stage.guard != "off" and stage.guard.judge else {})
    return {}


def _tools(stage: Any, upstream: Upstream) -> dict[str, str]:
    """What the tools of a stage can find and do, as far as that lies on this machine."""
    parts = {}
    used = list(reads.tools(stage))
    for loc, spec in used:
        name = ".".join(map(str, loc))
        if isinstance(spec, SearchSpec):
            made = upstream.data.get(str(spec.from_), "")
            parts[f"{name} index"] = digest(Path(spec.index).expanduser() / "manifest.json") if spec.index else made
        if isinstance(spec, McpSpec) and isinstance(spec.mcp, list):
            files = [Path(word).expanduser() for word in spec.mcp]
            parts[f"{name} files"] = digest_of(sorted(file for file in files if file.is_file() and file.suffix))
        if isinstance(spec, FunctionSpec):
            parts[f"code of {spec.path}"] = digest_of_package(spec.path.partition(":")[0])
    if used and isinstance(stage, (GrpoStage, SampledStage)):
        parts |= sources(("talking",), ("tools", "sandbox"))
    return parts


def _model(model: ModelSpec, base: str | None, kind: str) -> dict[str, str]:
    parts = {"model.dtype": model.dtype, "model.attn_implementation": model.attn_implementation or ""}
    if model.chat_template is not None and kind != "pretrain":
        parts["model.chat_template"] = digest(template_file(model.chat_template))
    if base is not None:
        folder = Path(base)
        parts["model"] = digest_of_model(folder) if folder.is_dir() else f"hub:{base}@{model.revision or 'main'}"
    return parts
