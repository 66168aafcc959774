"""TRL's RewardTrainer over whole rankings: every answer of a prompt is read once, and all comparisons are made of that
(InstructGPT, Ouyang et al. 2022, arXiv 2203.02155, section 3.5). B prompts, K places, N answers, T tokens, R raters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl import RewardTrainer

from llmkit.modeling.ranking_loss import Ranked, centering, differences, pairwise, plackett_luce
from llmkit.modeling.reward_model import padded
from llmkit.recipe.preference import RankingLossSpec


@dataclass(frozen=True)
class RankingCollator:
    """Rows of `llmkit.data.rankings` -> one batch of all their answers.

    Returns `input_ids` and `attention_mask` (N, T), `places` (N, 2) with each answer's prompt and place, and `ranks`
    (B, R, K), 0 where a prompt has no such answer or rater.
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        sequences, places = [], []
        for number, row in enumerate(rows):
            for place, answer in enumerate(row["answers_ids"]):
                sequences.append([*row["prompt_ids"], *answer])
                places.append((number, place))
        ids_NT, mask_NT = padded(sequences, self.pad_token_id, self.pad_to_multiple_of)
        ranks_BRK = torch.zeros(
            len(rows), max(len(r["rankings"]) for r in rows), max(len(r["answers_ids"]) for r in rows), dtype=torch.long
        )
        for number, row in enumerate(rows):
            for rater, ranks in enumerate(row["rankings"]):
                ranks_BRK[number, rater, : len(ranks)] = torch.tensor(ranks)
        return {"input_ids": ids_NT, "attention_mask": mask_NT, "places": torch.tensor(places), "ranks": ranks_BRK}


class RankingTrainer(RewardTrainer):
    """Takes rows of token ids as they are, and a loss over rankings in place of one over pairs."""

    def __init__(self, *args: Any, loss: RankingLossSpec, **options: Any) -> None:
        self.ranking_loss = loss
        super().__init__(*args, **options)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        ids_NT, mask_NT, places_N2 = inputs["input_ids"], inputs["attention_mask"], inputs["places"]
        outputs = model(input_ids=ids_NT, attention_mask=mask_NT, use_cache=False)
        scores_N, ranked = outputs.logits[:, 0].float(), Ranked(inputs["ranks"])
        scores_BK = scores_N.new_zeros(inputs["ranks"].shape[0], inputs["ranks"].shape[2])
        scores_BK = scores_BK.index_put((places_N2[:, 0], places_N2[:, 1]), scores_N)
        loss = ranking_loss(self.ranking_loss, scores_BK, ranked)
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * centering(scores_BK, ranked)
        if self.model.training:
            self._note(scores_N.detach(), scores_BK.detach(), ranked, mask_NT)
        return (loss, outputs) if return_outputs else loss

    def _note(self, scores_N: Tensor, scores_BK: Tensor, ranked: Ranked, mask_NT: Tensor) -> None:
        """Curves of a step, over all processes: one exchange, however many answers each has."""
        better_BRKK = ranked.gap_BRKK > 0
        difference_B1KK = differences(scores_BK)
        sums = torch.stack(
            [
                better_BRKK.sum().double(),
                ((difference_B1KK > 0) & better_BRKK).sum().double(),
                (difference_B1KK * better_BRKK).sum().double(),
                scores_N.double().sum(),
                torch.tensor(float(len(scores_N)), dtype=torch.float64, device=scores_N.device),
                mask_NT.sum().double(),
            ]
        )
        pairs, right, margin, total, answers, tokens = self.accelerator.reduce(sums, reduction="sum").tolist()
        self._total_train_tokens += int(tokens)
        curves = self._metrics["train"]
        curves["num_tokens"] = [self._total_train_tokens]
        curves["accuracy"].append(right / max(pairs, 1))
        curves["margin"].append(margin / max(pairs, 1))
        curves["mean_reward"].append(total / max(answers, 1))


def ranking_loss(spec: RankingLossSpec, scores_BK: Tensor, ranked: Ranked) -> Tensor:
    """As the recipe says."""
    if spec.type == "plackett_luce":
        return plackett_luce(scores_BK, ranked, top=spec.top)
    options: dict[str, Any] = {"margin": spec.margin, "label_smoothing": spec.label_smoothing, "ties": spec.ties}
    return pairwise(scores_BK, ranked, **options)
