"""Which stage a TRL-like file is for: it does not say, the command or the folder does."""

from __future__ import annotations

from pathlib import Path

from llmkit.errors import Problem, RecipeError
from llmkit.importing.draft import Draft

KINDS = {"sft": "sft", "dpo": "dpo", "cpt": "pretrain", "pt": "pretrain", "grpo": "grpo", "rloo": "rloo"}
KINDS |= {"pretrain": "pretrain", "continued_pretraining": "pretrain", "reward": "reward", "rm": "reward"}
"""Their word for a stage -> llmkit's kind."""
UNSUPPORTED = {
    "orpo": "ORPO (odds ratios without a reference model) has no stage in llmkit; its nearest relative is `dpo`",
    "kto": "KTO (single answers, each good or bad) has no stage in llmkit; with pairs, use `dpo`",
    "cpo": "CPO has no stage in llmkit; its nearest relative is `dpo`",
    "simpo": "SimPO has no stage in llmkit; its nearest relative is `dpo`",
    "bco": "BCO has no stage in llmkit; with pairs, use `dpo`",
    "ppo": "PPO with a value model has no stage in llmkit; `reward` and `rlhf` (GRPO or RLOO under guard) do its work",
    "gkd": "distillation from a teacher's probabilities has no stage in llmkit; sample answers, and train on them",
    "ebft": "energy-based tuning has no stage in llmkit",
    "prm": "process reward models have no stage in llmkit",
    "online_dpo": "online DPO has no stage in llmkit; use `rlhf`",
}
_PAIRED = {"rpo_alpha", "reference_free", "precompute_ref_log_probs", "ref_model_mixup_alpha", "discopop_tau"}
_SAMPLED = {"num_generations", "reward_funcs", "max_completion_length", "num_iterations", "reward_weights"}
_TUNED = {"max_seq_length", "packing", "assistant_only_loss", "completion_only_loss", "dataset_text_field"}


def find_kind(draft: Draft) -> str:
    """The kind that `--stage`, the path or the keys say. Raises RecipeError where they say none, or one without a
    counterpart."""
    word = draft.options.stage or _of_path(draft.foreign.path) or _of_keys(set(draft.given))
    if word is None:
        what = "does not say for which stage it is: such files are given to a command"
        raise RecipeError([Problem(str(draft.foreign.path), what, f"add --stage, one of {', '.join(KINDS)}")])
    return kind_of(word, str(draft.foreign.path))


def kind_of(word: str, where: str) -> str:
    """Their word -> llmkit's kind. Raises RecipeError."""
    if word in UNSUPPORTED:
        raise RecipeError([Problem(where, f"is for {word}: {UNSUPPORTED[word]}")])
    if word not in KINDS:
        raise RecipeError([Problem(where, f"no stage is called {word!r:.60}", f"have {', '.join(KINDS)}")])
    return KINDS[word]


def _of_path(path: Path) -> str | None:
    """The handbook's folders: recipes/<model>/<stage>/config_full.yaml."""
    folder, words = path.absolute().parent.name.lower(), path.stem.lower().replace("-", "_").split("_")
    if folder in KINDS or folder in UNSUPPORTED:
        return folder
    known = {word for word in words if word in KINDS or word in UNSUPPORTED}
    return known.pop() if len(known) == 1 else None


def _of_keys(keys: set[str]) -> str | None:
    if keys & _SAMPLED:
        return "grpo"
    if keys & _PAIRED:
        return "dpo"
    return "sft" if keys & _TUNED else None
