"""What a reward model is worth: the scale of its scores, how well they agree with rankings, and answers for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import torch

from llmkit.artifacts.files import write_json
from llmkit.artifacts.manifest import Curve, Sample, SourceCount, read_manifest
from llmkit.errors import DataError
from llmkit.modeling.reward_model import CARD, RewardCard, RewardModels, load_rewards
from llmkit.preference.measures import Scored, measures, odds_measures
from llmkit.recipe.parts import DataSource
from llmkit.stages.common import Worker

CEILINGS = ("right_pairs", "ceiling_between_raters", "ceiling_with_oneself")
"""Metrics of a `rank` stage that say what can be reached: of a function's errors it is known, of people's reckoned."""


def device() -> torch.device | str:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"


def real_scores(models: RewardModels, rows: datasets.Dataset) -> np.ndarray:
    """(N, M): raw scores of all ranked answers."""
    flat = [[*row["prompt_ids"], *ids] for row in rows for ids in row["answers_ids"][: row["num_ranked"]]]
    return models.raw(flat)


def scaled_card(card: RewardCard, raw_NM: np.ndarray) -> RewardCard:
    """Raises DataError where a member gives all answers one score, or one that is no number."""
    if not np.isfinite(raw_NM).all():
        raise DataError("reward model", "gives scores that are no numbers", "lower 'trainer.learning_rate'")
    deviations = raw_NM.std(0)
    if not (deviations > 0).all():
        raise DataError("reward model", "gives all answers one score", "train longer, or check that rankings differ")
    quantiles = np.quantile(raw_NM, (0.005, 0.995), axis=0)
    return card.model_copy(
        update={
            "means": raw_NM.mean(0).tolist(),
            "deviations": deviations.tolist(),
            "low": quantiles[0].tolist(),
            "high": quantiles[1].tolist(),
        }
    )


def measured_on(models: RewardModels, rows: datasets.Dataset) -> dict[str, float]:
    """Measures of all members together, the accuracy of each, and the share of degenerate answers that come last."""
    flat = [[*row["prompt_ids"], *ids] for row in rows for ids in row["answers_ids"]]
    raw_NM = models.raw(flat)
    scores_NM = models.scaled(raw_NM)
    single = len(models.members) == 1
    scored: list[list[Scored]] = [[] for _ in range(scores_NM.shape[1] + 1)]
    odds = list[Scored]()
    last, start = [], 0
    for row in rows:
        size, ranked = len(row["answers_ids"]), row["num_ranked"]
        own_KM = scores_NM[start : start + size]
        mean_K = own_KM.mean(1)
        last += [float(value < mean_K[:ranked].min()) for value in mean_K[ranked:]]
        rankings = [ranks[:ranked] for ranks in row["rankings"]]
        lengths = [len(ids) for ids in row["answers_ids"][:ranked]]
        for place, values_K in enumerate([mean_K, *own_KM.T]):
            scored[place].append(Scored(values_K[:ranked].tolist(), rankings, lengths))
        # members' own scores are the log-odds that they were trained to give; scaled they are none
        odds.append(Scored(raw_NM[start : start + ranked].mean(1).tolist(), rankings, lengths))
        start += size
    found = measures(scored[0]) | odds_measures(odds)
    if not single:
        found |= {
            f"accuracy_of_{name}": measures(own)["accuracy"]
            for name, own in zip(models.card.members, scored[1:], strict=True)
        }
        found["disagreement"] = float(scores_NM.std(1).mean())
    return found | ({"degenerate_last": sum(last) / len(last)} if last else {})


def ceiling(worker: Worker, sources: Sequence[DataSource], counts: Sequence[SourceCount]) -> dict[str, float]:
    """Share of pairs that a perfect model would put in the raters' order: of rankings by several `rank` stages the mean
    over prompts. Nothing where it is not known of all sources.

    Args:
        counts: rows of each source, in their order.
    """
    shares = [(_known(worker, source), count.num_used) for source, count in zip(sources, counts, strict=True)]
    known = [(share, num) for share, num in shares if share is not None and num]
    if not known or len(known) < len(shares):
        return {}
    return {"ceiling": sum(share * num for share, num in known) / sum(num for _, num in known)}


def _known(worker: Worker, source: DataSource) -> float | None:
    """Of one source, by the surest way in which it is known."""
    made = read_manifest(Path(worker.file.data_stages[source.from_])) if source.from_ else None
    if made is None or made.kind != "rank":
        return None
    return next((made.metrics[name] for name in CEILINGS if name in made.metrics), None)


def learning_curve(
    card: RewardCard,
    curve: list[tuple[float, Path]],
    num_train: int,
    heldout: datasets.Dataset,
    metrics: dict[str, float],
) -> Curve:
    """Accuracy against the number of prompts that were ranked."""
    plain = card.model_copy(
        update={"members": ["."], "means": [0.0], "deviations": [1.0], "low": [0.0], "high": [0.0], "accuracy": None}
    )
    points = []
    for share, path in curve:
        write_json(path / CARD, plain.model_dump())
        accuracy = measured_on(load_rewards(path, device=device()), heldout)["accuracy"]
        points.append((float(max(1, round(share * num_train))), accuracy))
    members = [metrics[key] for key in metrics if key.startswith("heldout/accuracy_of_")]
    whole = sum(members) / len(members) if members else metrics["heldout/accuracy"]
    return Curve(name="rankings", x="prompts ranked", y="pair accuracy", points=[*points, (float(num_train), whole)])


def samples(models: RewardModels, rows: datasets.Dataset) -> list[Sample]:
    """Three prompts with their best and worst answers by score, for people."""
    found = []
    for row in rows.select(range(min(3, len(rows)))):
        answers = row["answers_ids"][: row["num_ranked"]]
        scores = models.scaled(models.raw([[*row["prompt_ids"], *ids] for ids in answers])).mean(1)
        prompt = models.tokenizer.decode(row["prompt_ids"], skip_special_tokens=True)
        for label, place in (("best", int(scores.argmax())), ("worst", int(scores.argmin()))):
            said = f"{label} by score, {scores[place]:.2f}"
            found.append(
                Sample(
                    prompt=prompt,
                    completion=models.tokenizer.decode(answers[place], skip_special_tokens=True),
                    label=said,
                )
            )
    return found
