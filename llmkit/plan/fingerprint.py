"""What a stage's result depends on, part by part, and the hash over all parts.

A finished stage whose parts are unchanged is skipped. In: the settings, the input model or its stage's fingerprint,
the content of data files, the Hub ids and revisions, the chat template, and the source files of the rooms that do
the work. Out, because they do not change the result: names, how the batch is cut over processes and steps, which
machine runs it (`launch`), and how often progress is saved and shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmkit.artifacts.files import sha256_of
from llmkit.artifacts.shipped import shipped
from llmkit.plan.files import (
    digest,
    digest_of,
    digest_of_model,
    digest_of_package,
    digest_of_source,
    digest_of_sources,
    resolve_model,
    template_file,
)
from llmkit.recipe import reads
from llmkit.recipe.hub import PushStage
from llmkit.recipe.identity import IdentityEval
from llmkit.recipe.knowledge import HonestySpec
from llmkit.recipe.parts import ModelSpec
from llmkit.recipe.practice import ProblemsSpec
from llmkit.recipe.preference import PreferenceSpec
from llmkit.recipe.schema import EvalSpec, EvaluateStage
from llmkit.recipe.stages import GrpoStage, TunedStage
from llmkit.recipe.stages_preference import RankStage, RlhfStage, RolloutStage
from llmkit.recipe.tools import FunctionSpec, McpSpec, SearchSpec, ToolsSpec
from llmkit.recipe.trials import JailbreakSpec, ReversalSpec

_PACKAGE = Path(__file__).resolve().parent.parent
_ROOMS = {
    "pretrain": ("data", "chat", "modeling"),
    "sft": ("data", "chat", "modeling"),
    "dpo": ("data", "chat", "modeling", "intervals.py"),
    "grpo": ("data", "chat", "modeling", "generation", "knowledge", "rewards", "sandbox", "intervals.py"),
    "rloo": ("data", "chat", "modeling", "generation", "knowledge", "rewards", "sandbox", "intervals.py"),
    "rollout": ("data", "chat", "modeling", "generation"),
    "rank": ("preference", "intervals.py", "knowledge", "chat/turn.py"),
    "reward": ("data", "chat", "modeling", "preference", "intervals.py"),
    "rlhf": ("data", "chat", "modeling", "generation", "knowledge", "rewards", "sandbox", "preference", "intervals.py"),
    "best_of_n": ("data", "chat", "modeling", "generation", "knowledge", "rewards", "sandbox", "intervals.py"),
    "interrogate": ("knowledge", "generation", "data", "chat", "modeling"),
    "refusals": ("knowledge", "tools", "chat/schemas.py", "chat/turn.py"),
    "search_index": ("tools", "data"),
    "identity": ("identity",),
    "evaluate": ("evaluate", "intervals.py", "generation", "chat", "modeling"),
    "push": ("hub", "report"),
}
_RANKED_BY = {
    "judge": (("asked", "engines"), ("chat", "modeling", "generation")),
    "labeller": (("preferring",), ("rewards",)),
}
"""Who ranks -> the files of `stages/` and the rooms whose code that takes besides."""
_EVAL_FILES = (".yaml", ".yml", ".jsonl", ".json", ".py")
_PRACTICE_FILES = (
    "common", "training", "callbacks", "practising", "practice", "prompts", "rollouts", "measuring", "monitors",
    "problems", "solving", "scoring",
)  # fmt: skip
_SHARED_FILES = {
    "evaluate": ("common",),
    "interrogate": ("common", "asked", "documents", "engines", "probed", "questions"),
    "refusals": ("common", "probed"),
    "search_index": ("common",),
    "identity": ("common",),
    "dpo": ("common", "training", "callbacks", "heldout_pairs"),
    "grpo": _PRACTICE_FILES,
    "rloo": _PRACTICE_FILES,
    "rollout": ("common", "asked", "engines", "problems", "solving"),
    "rank": ("common", "rank_judge"),
    "push": ("common",),
    "reward": ("common", "training", "callbacks", "ranking_trainer", "reward_measures"),
    "rlhf": (*_PRACTICE_FILES, "preferring", "guarding", "guard_callback"),
    "best_of_n": ("common", "asked", "engines", "problems", "solving", "scoring"),
}
_TRAINING_FILES = ("common", "training", "callbacks")
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
    parts = {**_settings(stage), **_code(stage.kind), **_read(stage, upstream), **_engines(stage)}
    if isinstance(stage, EvaluateStage):
        parts |= {f"evals.{spec.task}": _evaluation(spec) for spec in stage.evals if isinstance(spec, EvalSpec)}
        parts |= _honesty(stage, upstream) | _problems(stage) | _preferences(stage, upstream) | _tool_use(stage)
        parts |= _identities(stage) | _trials(stage)
        parts["compare_with"] = upstream.compare_with or ""
    if isinstance(stage, TunedStage) and stage.early_stopping is not None:
        parts |= _sources(("early_stopping",), ("knowledge", "generation"))
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
        parts |= _sources(*_RANKED_BY.get(stage.by, ((), ())))
        return parts | ({"rankings": digest(file)} if file is not None else {})
    if isinstance(stage, RolloutStage):
        return {f"model {name}": upstream.data.get(name, "") for name in stage.models}
    if isinstance(stage, RlhfStage):
        return {".".join(map(str, loc)): upstream.data.get(name, "") for loc, name in reads.reward_models(stage)}
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
    if used and isinstance(stage, GrpoStage):
        parts |= _sources(("talking",), ("tools", "sandbox"))
    return parts


def _tool_use(stage: EvaluateStage) -> dict[str, str]:
    """Settings of the evaluations with tools, and the code that runs them."""
    specs = [spec for spec in stage.evals if isinstance(spec, ToolsSpec)]
    if not specs:
        return {}
    parts = {f"evals.{spec.name}": spec.model_dump_json(exclude={"questions"}) for spec in specs}
    return parts | _sources(("tool_use", "talking", "frozen"), ("knowledge", "tools", "sandbox", "data"))


def _problems(stage: EvaluateStage) -> dict[str, str]:
    """Settings of the evaluations on problems, and the code that runs them."""
    specs = [spec for spec in stage.evals if isinstance(spec, ProblemsSpec)]
    if not specs:
        return {}
    parts = {f"evals.{spec.name}": spec.model_dump_json(exclude={"problems"}) for spec in specs}
    return parts | _sources(("problems", "solving", "scoring", "thinking"), ("knowledge", "rewards", "sandbox", "data"))


def _preferences(stage: EvaluateStage, upstream: Upstream) -> dict[str, str]:
    """Settings of the evaluations of preferences, the reward models and baselines that they read, and their code."""
    specs = [spec for spec in stage.evals if isinstance(spec, PreferenceSpec)]
    if not specs:
        return {}
    parts = {f"evals.{spec.name}": spec.model_dump_json(exclude={"prompts"}) for spec in specs}
    parts |= {f"baseline {name}": fingerprint for name, fingerprint in upstream.baselines.items()}
    parts |= {f"reward model {name}": upstream.data.get(name, "") for spec in specs for name in spec.stages}
    return parts | _sources(("preferences", "preferring", "problems", "solving"), ("preference", "rewards", "data"))


def _identities(stage: EvaluateStage) -> dict[str, str]:
    """Settings of the evaluations of identity, and the code that runs them."""
    specs = [spec for spec in stage.evals if isinstance(spec, IdentityEval)]
    if not specs:
        return {}
    parts = {f"evals.{spec.name}": spec.model_dump_json() for spec in specs}
    return parts | _sources(("identity",), ("identity",))


def _trials(stage: EvaluateStage) -> dict[str, str]:
    """Settings of the evaluations of reversal and jailbreaks, and the code that runs them."""
    parts: dict[str, str] = {}
    for spec in stage.evals:
        if isinstance(spec, ReversalSpec):
            parts[f"evals.{spec.name}"] = spec.model_dump_json(exclude={"questions"})
            parts |= _sources(("reversal", "asking", "frozen"), ("knowledge", "data"))
        if isinstance(spec, JailbreakSpec):
            parts[f"evals.{spec.name}"] = spec.model_dump_json(exclude={"unsafe", "safe"})
            parts |= _sources(("jailbreak", "asking"), ("knowledge", "data", "evaluate/wrappings.py"))
    return parts


def _honesty(stage: EvaluateStage, upstream: Upstream) -> dict[str, str]:
    """Settings of the honesty evaluations, the baselines that they are compared with, and the code that runs them."""
    specs = [spec for spec in stage.evals if isinstance(spec, HonestySpec)]
    if not specs:
        return {}
    parts = {f"evals.{spec.name}": spec.model_dump_json(exclude={"questions"}) for spec in specs}
    parts |= {f"baseline {name}": fingerprint for name, fingerprint in upstream.baselines.items()}
    return parts | _sources(("honesty", "frozen", "asked", "engines"), ("knowledge", "data"))


def _model(model: ModelSpec, base: str | None, kind: str) -> dict[str, str]:
    parts = {"model.dtype": model.dtype, "model.attn_implementation": model.attn_implementation or ""}
    if model.chat_template is not None and kind != "pretrain":
        parts["model.chat_template"] = digest(template_file(model.chat_template))
    if base is not None:
        folder = Path(base)
        parts["model"] = digest_of_model(folder) if folder.is_dir() else f"hub:{base}@{model.revision or 'main'}"
    return parts


def _evaluation(spec: EvalSpec) -> str:
    """Settings of an eval, and the files of the folders in which its task and data may lie."""
    folders = [shipped("evals"), *([Path(spec.include_path).expanduser()] if spec.include_path else [])]
    own = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in _EVAL_FILES)
    data = sorted(p for p in Path(spec.data).expanduser().rglob("*") if p.is_file()) if spec.data else []
    sandbox = digest_of_sources(_PACKAGE / "sandbox") if spec.allow_code_execution else ""
    return f"{spec.model_dump_json(exclude_defaults=True)} {digest_of([*own, *data])} {sandbox}{_lm_eval()}"


@cache
def _lm_eval() -> str:
    """`lm_eval-<version>`: its own tasks and metrics are part of the measure."""
    spec = find_spec("lm_eval")
    found = Path(spec.origin).parent.parent.glob("lm_eval-*.dist-info") if spec and spec.origin else []
    return next((path.stem for path in found), "")


def _code(kind: str) -> dict[str, str]:
    """Source files of the rooms that compute a stage."""
    return _sources((*_SHARED_FILES.get(kind, _TRAINING_FILES), kind), _ROOMS.get(kind, ()))


def _sources(files: Iterable[str], rooms: Iterable[str]) -> dict[str, str]:
    """Of `stages/` the named files; of other rooms all. A room may be a single file."""
    parts = {f"code of llmkit/stages/{name}.py": digest(_PACKAGE / "stages" / f"{name}.py") for name in files}
    return parts | {f"code of llmkit/{room}": _room(_PACKAGE / room) for room in rooms}


def _room(path: Path) -> str:
    # prompts of judges and writers, refusals and wordings are text files beside the code
    return digest(path) if path.suffix else digest_of_sources(path, (".py", ".jinja", ".txt", ".toml"))
