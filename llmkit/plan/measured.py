"""What the figures of an evaluation depend on, part by part: settings, task files and data, baselines, code."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmkit.artifacts.shipped import shipped
from llmkit.plan import code
from llmkit.plan.files import digest_of, digest_of_sources
from llmkit.recipe.identity import IdentityEval
from llmkit.recipe.knowledge import HonestySpec
from llmkit.recipe.practice import ProblemsSpec
from llmkit.recipe.preference import PreferenceSpec
from llmkit.recipe.schema import EvalSpec, EvaluateStage
from llmkit.recipe.tools import ToolsSpec
from llmkit.recipe.trials import JailbreakSpec, ReversalSpec

_EVAL_FILES = (".yaml", ".yml", ".jsonl", ".json", ".py")
_OWN: dict[type[Any], tuple[set[str], tuple[str, ...], tuple[str, ...]]] = {
    HonestySpec: ({"questions"}, ("honesty", "frozen", "taught", "asked", "engines"), ("knowledge", "data")),
    ProblemsSpec: (
        {"problems"},
        ("problems", "solving", "scoring", "own_template"),
        ("knowledge", "rewards", "sandbox", "data"),
    ),
    PreferenceSpec: (
        {"prompts"},
        ("preferences", "preferring", "problems", "solving"),
        ("preference", "rewards", "data"),
    ),
    ToolsSpec: (
        {"questions"},
        ("tool_use", "talking", "frozen", "taught", "own_template"),
        ("knowledge", "tools", "sandbox", "data"),
    ),
    IdentityEval: (set(), ("identity",), ("identity",)),
    ReversalSpec: ({"questions"}, ("reversal", "asking", "frozen", "taught"), ("knowledge", "data")),
    JailbreakSpec: (
        {"unsafe", "safe"},
        ("jailbreak", "asking", "problems"),
        ("knowledge", "data", "evaluate/wrappings.py"),
    ),
}
"""Evaluations of llmkit's own -> data that counts by content, files of `stages/` and rooms that run them."""


def measured(stage: EvaluateStage, read: dict[str, str], baselines: dict[str, str]) -> dict[str, str]:
    """Named parts of the fingerprint. Args: read, baselines: fingerprints of steps, by name."""
    parts = {f"evals.{spec.task}": of_task(spec) for spec in stage.evals if isinstance(spec, EvalSpec)}
    for spec in stage.evals:
        if isinstance(spec, EvalSpec):
            continue
        content, files, rooms = _OWN[type(spec)]
        parts[f"evals.{spec.name}"] = spec.model_dump_json(exclude=content)
        parts |= code.sources(files, rooms)
        if isinstance(spec, (HonestySpec, PreferenceSpec)):
            parts |= {f"baseline {name}": fingerprint for name, fingerprint in baselines.items()}
        if isinstance(spec, PreferenceSpec) and (spec.judge or spec.self_pairs):
            parts |= code.sources(("judged_pairs", "rank_judge", "engines"), ("knowledge",))
        if isinstance(spec, PreferenceSpec):
            parts |= {f"reward model {name}": read.get(name, "") for name in spec.stages}
    return parts


def of_task(spec: EvalSpec) -> str:
    """Settings of a task of lm-eval, and the files of the folders in which its definition and data may lie."""
    folders = [shipped("evals"), *([Path(spec.include_path).expanduser()] if spec.include_path else [])]
    own = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in _EVAL_FILES)
    data = sorted(p for p in Path(spec.data).expanduser().rglob("*") if p.is_file()) if spec.data else []
    sandbox = digest_of_sources(code.PACKAGE / "sandbox") if spec.allow_code_execution else ""
    return f"{spec.model_dump_json(exclude_defaults=True)} {digest_of([*own, *data])} {sandbox}{_lm_eval()}"


@cache
def _lm_eval() -> str:
    """`lm_eval-<version>`: its own tasks and metrics are part of the measure."""
    spec = find_spec("lm_eval")
    found = Path(spec.origin).parent.parent.glob("lm_eval-*.dist-info") if spec and spec.origin else []
    return next((path.stem for path in found), "")
