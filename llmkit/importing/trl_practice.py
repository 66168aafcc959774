"""GRPO and RLOO of open-r1 and TRL: problems, and rewards by llmkit's names."""

from __future__ import annotations

import re
from typing import Any

from llmkit.importing.draft import Draft
from llmkit.importing.foreign import as_number

_SAME = {
    "accuracy": "math",
    "accuracy_reward": "math",
    "reasoning_accuracy_reward": "math",
    "think_format_reward": "think",
}
_ANSWERED = r"(?s)\A<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>\Z"
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_OPEN_R1 = ("accuracy", "format", "tag_count")
"""What open-r1 takes where a file names no rewards."""
SAMPLED = (
    "reward_funcs", "reward_weights", "reward_model_name_or_path", "system_prompt", "dataset_prompt_column",
    "repetition_n_grams", "repetition_max_penalty", "max_completion_len", "soft_punish_cache",
)  # fmt: skip
"""Keys that are read here, and by no other stage."""
_SANDBOX = "reward `code` runs programs in llmkit's own sandbox"
LISTED = {
    "code_language": "programs are Python: reward `code`",
    "code_eval_test_batch_size": "reward `code` runs all tests of a program",
    "code_eval_scoring_mode": "set the option `score` of reward `code`",
    "code_provider": _SANDBOX,
    "parallel_code_exec_per_proc": _SANDBOX,
    "e2b_router_url": _SANDBOX,
    "morph_router_url": _SANDBOX,
    "ioi_provider": _SANDBOX,
    "piston_endpoint_set": _SANDBOX,
    "cosine_min_value_wrong": "there is no cosine reward; `length` and `overlong` bound answers",
    "cosine_max_value_wrong": "there is no cosine reward; `length` and `overlong` bound answers",
    "cosine_min_value_correct": "there is no cosine reward; `length` and `overlong` bound answers",
    "cosine_max_value_correct": "there is no cosine reward; `length` and `overlong` bound answers",
    "cosine_max_len": "there is no cosine reward; `length` and `overlong` bound answers",
    "dataset_solution_column": "set a source's `columns`",
}


def practise(draft: Draft, sources: list[dict[str, Any]], system: str) -> None:
    """Columns, system message and rewards of a stage that practises."""
    if draft.get("reward_model_name_or_path"):
        what = "a reward model from elsewhere cannot be practised against"
        cure = "train one in a `reward` stage, and practise in an `rlhf` stage"
        raise draft.refuse(("reward_model_name_or_path",), what, cure)
    _problems(draft, sources, system)
    rewards, missing = _rewards(draft, system)
    if not rewards:
        cure = "write one as a function: `rewards: [{path: package.module:function}]`"
        raise draft.refuse(("reward_funcs",), f"llmkit has none of these rewards: {', '.join(missing)}", cure)
    draft.stage["rewards"] = rewards
    why = f"without counterpart, left out: {', '.join(missing)}" if missing else ""
    draft.moved(("reward_funcs",), "rewards", why)
    draft.moved(("reward_weights",), "rewards[].weight")
    for key in ("repetition_n_grams", "repetition_max_penalty", "max_completion_len", "soft_punish_cache"):
        draft.moved((key,), "rewards[].args")


def _problems(draft: Draft, sources: list[dict[str, Any]], system: str) -> None:
    column = draft.get("dataset_prompt_column")
    heldout = [source for held in draft.stage.get("heldout", {}).values() for source in held]
    for source in [*sources, *heldout]:
        source.pop("format", None)
        columns = {"prompt": str(column)} if column and column != "prompt" else {}
        if system == "open-r1" or draft.get("reward_funcs"):
            columns["answer"] = "solution"
        if columns:
            source["columns"] = columns
        if isinstance(draft.get("system_prompt"), str):
            source["system"] = draft.given["system_prompt"]
    draft.moved(("dataset_prompt_column",), "data[].columns.prompt")
    draft.moved(("system_prompt",), "data[].system")


def _rewards(draft: Draft, system: str) -> tuple[list[dict[str, Any]], list[str]]:
    names = draft.get("reward_funcs", list(_OPEN_R1) if system == "open-r1" else [])
    names = names if isinstance(names, list) else [names]
    weights = draft.get("reward_weights", [1.0] * len(names))
    if not isinstance(weights, list) or len(weights) != len(names):
        raise draft.refuse(("reward_weights",), f"needs one weight for each of {len(names)} rewards")
    found, missing = [], []
    for name, weight in zip(names, weights, strict=True):
        reward = _reward(draft, str(name))
        if reward is None:
            missing.append(str(name))
        else:
            found.append(reward if as_number(weight) == 1 else {**reward, "weight": as_number(weight)})
    return found, missing


def _reward(draft: Draft, name: str) -> dict[str, Any] | None:
    if name in _SAME:
        return {"name": _SAME[name]}
    if name == "format":
        return {"name": "regex", "args": {"pattern": _ANSWERED}}
    if name == "repetition_penalty":
        penalty = abs(draft.number("repetition_max_penalty", -1.0))
        return {"name": "repetition", "args": {"ngram": draft.count("repetition_n_grams", 3), "max_penalty": penalty}}
    if name == "soft_overlong_punishment":
        length, cache = draft.count("max_completion_len", 16384), draft.count("soft_punish_cache", 4096)
        return {"name": "overlong", "args": {"max_length": length, "cache": cache}}
    return {"path": f"{name.rpartition('.')[0]}:{name.rpartition('.')[2]}"} if _DOTTED.fullmatch(name) else None
