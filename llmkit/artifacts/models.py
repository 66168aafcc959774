"""Which finished stages made a model that answers, and why the others did not."""

from __future__ import annotations

from llmkit.artifacts.manifest import Manifest
from llmkit.recipe.schema import KINDS


def speaks(manifest: Manifest) -> bool:
    """Whether a stage made a model that answers: a reward model only scores."""
    makes_model = manifest.kind not in KINDS or KINDS[manifest.kind].makes_model
    return makes_model and bool(manifest.model_dir or manifest.adapter_dir)


def silence(manifest: Manifest) -> str:
    """Of a stage that did not: why, in words."""
    if manifest.kind == "reward":
        return f"stage '{manifest.stage}' made a reward model, which scores answers and writes none"
    return f"stage '{manifest.stage}' is of kind '{manifest.kind}', which makes no model"
