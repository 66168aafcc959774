"""Which values `trainer:` may hold, where TRL's own config takes more than its trainers can work with.

Ranges are listed here. Choices are read from the trainers' source, as the keys are from their configs.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from llmkit.recipe.trainer_keys import CONFIG_CLASSES, declared, package_dir


@dataclass(frozen=True)
class Range:
    """Numbers that an option takes. `above`: `low` itself is none of them. `whole`: of type int alone."""

    low: float
    high: float = math.inf
    above: bool = False
    whole: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value is a finite number in the range."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        return math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"{kind} above {self.low:g}" if self.above else f"{kind}, at least {self.low:g}"
        return low if self.high == math.inf else f"{low} and at most {self.high:g}"


_COUNT, _POSITIVE, _FROM_0 = Range(1, whole=True), Range(0, above=True), Range(0)
_SHARE, _POSITIVE_SHARE = Range(0, 1), Range(0, 1, above=True)
_RANGES = {
    "learning_rate": _FROM_0,
    "weight_decay": _FROM_0,
    "beta": _FROM_0,
    "temperature": _POSITIVE,
    "top_p": _POSITIVE_SHARE,
    "top_k": Range(0, whole=True),
    "min_p": _SHARE,
    "repetition_penalty": _POSITIVE,
    "num_generations": Range(2, whole=True),
    "num_iterations": _COUNT,
    "generation_batch_size": _COUNT,
    "max_completion_length": _COUNT,
    "epsilon": _FROM_0,
    "epsilon_high": _FROM_0,
    "delta": _POSITIVE,
    "sapo_temperature_neg": _POSITIVE,
    "sapo_temperature_pos": _POSITIVE,
    "top_entropy_quantile": _SHARE,
    "ref_model_mixup_alpha": _SHARE,
    "ref_model_sync_steps": _COUNT,
    "vllm_gpu_memory_utilization": _POSITIVE_SHARE,
    "vllm_tensor_parallel_size": _COUNT,
}
# Options that take one of some words (or a list of them), none of which TRL's configs check.
_CHOICES = (
    *("loss_type", "f_divergence_type", "importance_sampling_level", "scale_rewards", "multi_objective_aggregation"),
    *("vllm_mode", "vllm_importance_sampling_mode"),
)
# Where a trainer hands an option on, (file, name that it has there).
_HANDED_ON = {"vllm_mode": ("generation/vllm_generation.py", "self.mode")}
# What TRL's config itself turns into one of the words.
_ALIASES: dict[str, tuple[Any, ...]] = {"scale_rewards": (True, False)}


def check_values(kind: str, trainer: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(key, what, cure) for every value that the trainer of `kind` cannot work with."""
    options = declared(kind)
    for key, value in trainer.items():
        if key not in options or (value is None and options[key] is None):
            continue
        if key in _RANGES and not _RANGES[key].holds(value):
            yield key, f"is {_shown(value)}", f"give {_RANGES[key]}"
        if key in _CHOICES and (known := choices(kind, key)):
            words = value if isinstance(value, list) and not isinstance(options[key], str) else [value]
            yield from _unknown(key, words, known)


def _unknown(key: str, words: list[Any], known: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    for word in words:
        if word not in (*known, *_ALIASES.get(key, ())):
            near = get_close_matches(str(word), known, n=1)
            cure = f"did you mean '{near[0]}'?" if near else f"have: {', '.join(known)}"
            yield key, f"TRL knows no {_shown(word)}", cure


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)


@cache
def choices(kind: str, key: str) -> tuple[str, ...]:
    """Words that the trainer of `kind` or its config compares an option with. Empty: its source does not say."""
    package, config, _ = CONFIG_CLASSES[kind][0]
    other, name = _HANDED_ON.get(key, (config.replace("_config.py", "_trainer.py"), key))
    compared = re.compile(rf"""{re.escape(name)} (?:==|!=|in|not in) ("[^"]*"|\[[^\]]*\]|\([^)]*\))""")
    words: set[str] = set()
    for file in (config, other):
        for found in compared.findall((package_dir(package) / file).read_text(encoding="utf-8")):
            value = ast.literal_eval(found)
            words.update((value,) if isinstance(value, str) else value)
    return tuple(sorted(words))
