"""Curves of the stages that practise: names, the ranges in which llmkit expects them, and what a recipe lays over them.

The ranges are those outside which published runs were in trouble.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from llmkit.recipe.practice import Limits
from llmkit.recipe.source import Loc
from llmkit.recipe.stages import PracticeStage
from llmkit.recipe.trainer_keys import resolved_trainer, trainer_options

Found = tuple[Loc, str, str]

GROWTH = 3.0
"""Answers that many times as long, or as short, as in the first steps: length drift."""
USEFUL, DRIFT, TRADED = "practice/useful_groups", "length_drift", "reward_traded"
"""`length_drift`: length over that of the first steps. `reward_traded`: while the sum of rewards is above that of the
first steps, how far the weighted mean of the one that fell most is below its own."""
RANGES: Mapping[str, Limits] = {
    # Cui et al. 2025 (arXiv 2505.22617): reward is traded for entropy, and is spent when that is near 0
    "entropy": Limits(min=0.005, max=6.0),
    # Ouyang et al. 2022, Gao et al. 2022 (arXiv 2210.10760): a few nats per answer; per token far less
    "kl": Limits(max=1.0),
    # DAPO (arXiv 2503.14476) works with 0.2 and 0.28: clipped shares of more than a tenth mean too long steps
    "clip_ratio/region_mean": Limits(max=0.2),
    USEFUL: Limits(min=0.1),
    "completions/clipped_ratio": Limits(max=0.3),
    "grad_norm": Limits(max=50.0),
    DRIFT: Limits(min=1 / GROWTH, max=GROWTH),
    # a fifth of what one right answer brings
    TRADED: Limits(max=0.2),
}
_OTHERS = (
    *("loss", "learning_rate", "epoch", "num_tokens", "step_time", "policy_loss", "aux_loss", "entropy_coef"),
    *("reward", "reward_std", "frac_reward_zero_std", "cispo_clip_ratio", "vespo/phi_seq_mean"),
    *("practice/sampled_tokens", "practice/open_levels"),
    *(f"completions/{name}" for name in ("mean_length", "min_length", "max_length")),
    *(f"completions/{name}_terminated_length" for name in ("mean", "min", "max")),
    *(f"clip_ratio/{name}" for name in ("low_mean", "low_min", "high_mean", "high_max")),
    *(f"sampling/sampling_logp_difference/{name}" for name in ("mean", "max")),
    *(f"sampling/importance_sampling_ratio/{name}" for name in ("min", "mean", "max")),
)
"""What else TRL 1.16 and llmkit may log, whatever the rewards."""
_ALIKE = 0.85


def names(stage: PracticeStage) -> list[str]:
    """All curves that a stage may log, but for those that its rewards make."""
    labels = [reward.label for reward in stage.rewards]
    return [*RANGES, *_OTHERS, *(f"rewards/{label}/{of}" for label in labels for of in ("mean", "std"))]


def filled(own: Mapping[str, Limits]) -> dict[str, Limits]:
    """The recipe's limits, complete: what it leaves out is llmkit's, where llmkit watches the curve."""
    return {
        name: RANGES.get(name, limits).model_copy(update=limits.model_dump(exclude_unset=True))
        for name, limits in own.items()
    }


def unwatchable(stage: PracticeStage) -> Iterator[Found]:
    """Monitors that can watch nothing, as (location in the stage, what, cure)."""
    known = names(stage)
    for name, limits in filled(stage.monitors).items():
        loc = ("monitors", name)
        near = [] if name in known else get_close_matches(name, known, n=1, cutoff=_ALIKE)
        if near:
            yield loc, "no curve is called so", f"did you mean '{near[0]}'?"
        elif limits.min is None and limits.max is None:
            yield loc, "watches nothing", "give 'min' or 'max'"
        elif limits.min is not None and limits.max is not None and limits.min > limits.max:
            said = f"its range is {limits.min:g} to {limits.max:g}, so that every value is outside"
            yield loc, said, "set both 'min' and 'max'"
        elif name == "kl" and not _beta(stage):
            yield loc, "there is no reference model to measure it to", "set 'trainer.beta', or leave it out"


def _beta(stage: PracticeStage) -> float | None:
    """As resolved: `rlhf` has one by default."""
    kind = stage.trainer_kind
    beta: float | None = trainer_options(kind, resolved_trainer(kind, stage.trainer))["beta"]
    return beta
