"""Losses of a reward model over whole rankings. B prompts, K places for answers, R rankings of a prompt's answers.

All are means over prompts, so that a prompt counts as much as any other, however many answers and raters it has.
Where all prompts have as many answers, one rater and no ties, `pairwise` is the mean over all pairs that a trainer of
single pairs takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Ranked:
    """Answers of a batch and their ranks.

    Attributes:
        ranks_BRK: 1 is best, equal is tied, 0 is no answer (or a rater that is not there).
    """

    ranks_BRK: Tensor

    @cached_property
    def gap_BRKK(self) -> Tensor:
        """[i, j]: places by which answer i is ranked above j; 0 where either is none."""
        return (self.ranks_BRK[..., None, :] - self.ranks_BRK[..., :, None]) * self._both_BRKK

    @property
    def tied_BRKK(self) -> Tensor:
        """[i, j], i < j: both are answers, of one rank."""
        return (self._both_BRKK & (self.gap_BRKK == 0)).triu(1)

    @property
    def _both_BRKK(self) -> Tensor:
        """[i, j]: both are answers."""
        real_BRK = self.ranks_BRK > 0
        return real_BRK[..., :, None] & real_BRK[..., None, :]


def differences(scores_BK: Tensor) -> Tensor:
    """(B, 1, K, K): [i, j] is the score of answer i minus that of j, for every rater."""
    return (scores_BK[:, :, None] - scores_BK[:, None, :])[:, None]


def pairwise(
    scores_BK: Tensor, ranked: Ranked, *, margin: float = 0.0, label_smoothing: float = 0.0, ties: str = "drop"
) -> Tensor:
    """-log sigmoid of the difference, over all pairs of which one is ranked above the other.

    InstructGPT (Ouyang et al. 2022, arXiv 2203.02155), eq. 1; `margin` as in Llama 2 (Touvron et al. 2023, arXiv
    2307.09288), eq. 2, here per place between the two; `label_smoothing` as in conservative DPO (Mitchell 2023).

    Args:
        scores_BK: float32, any finite number where there is no answer.
        ties: "drop", or "equal": pairs of one rank are asked to score the same (each way round with half a weight).
    """
    gap_BRKK, plain_B1KK = ranked.gap_BRKK, differences(scores_BK)
    difference_BRKK = plain_B1KK - margin * gap_BRKK
    loss_BRKK = (1 - label_smoothing) * F.softplus(-difference_BRKK) + label_smoothing * F.softplus(difference_BRKK)
    better_BRKK = gap_BRKK > 0
    total_B = (loss_BRKK * better_BRKK).sum((1, 2, 3))
    count_B = better_BRKK.sum((1, 2, 3))
    if ties == "equal":
        tied_BRKK = ranked.tied_BRKK
        total_B = total_B + (0.5 * (F.softplus(plain_B1KK) + F.softplus(-plain_B1KK)) * tied_BRKK).sum((1, 2, 3))
        count_B = count_B + tied_BRKK.sum((1, 2, 3))
    return (total_B / count_B.clamp(min=1)).mean()


def plackett_luce(scores_BK: Tensor, ranked: Ranked, *, top: int | None = None) -> Tensor:
    """-log of the chance that answers are drawn in their order, each by softmax among those that are left.

    ListMLE (Xia et al. 2008), divided by the number of draws; with two answers it is `pairwise`. Answers of one rank
    are drawn together from what is left with them (Breslow 1974), and the last ones, who have no choice, cost nothing.

    Args:
        top: only the first so many places are drawn.
    """
    total, rankings = scores_BK.new_zeros(()), 0
    for scores_K, ranks_RK in zip(scores_BK, ranked.ranks_BRK, strict=True):
        raters = [ranks_K for ranks_K in ranks_RK if (ranks_K > 0).any()]
        each = [_drawn(scores_K[ranks_K > 0], ranks_K[ranks_K > 0], top) for ranks_K in raters]
        if each:
            total, rankings = total + torch.stack(each).mean(), rankings + 1
    return total / max(rankings, 1)


def _drawn(scores_K: Tensor, ranks_K: Tensor, top: int | None) -> Tensor:
    """Of one ranking: mean over its draws."""
    places = torch.unique(ranks_K).tolist()[:-1]
    if top is not None:
        places = [place for place in places if int((ranks_K < place).sum()) < top]
    if not places:
        return scores_K.sum() * 0
    costs, draws = [], 0
    for place in places:
        drawn, left = ranks_K == place, ranks_K >= place
        size = int(drawn.sum())
        costs.append(size * torch.logsumexp(scores_K[left], 0) - scores_K[drawn].sum())
        draws += size
    return torch.stack(costs).sum() / draws


def centering(scores_BK: Tensor, ranked: Ranked) -> Tensor:
    """Mean over a prompt's pairs of the squared sum of their scores: keeps scores around 0 (Eisenstein et al. 2023,
    arXiv 2312.09244, eq. 2), as TRL's `center_rewards_coefficient` does for single pairs."""
    real_BK = (ranked.ranks_BRK > 0).any(1)
    both_BKK = (real_BK[:, :, None] & real_BK[:, None, :]).triu(1)
    squared_BKK = (scores_BK[:, :, None] + scores_BK[:, None, :]) ** 2
    return ((squared_BKK * both_BKK).sum((1, 2)) / both_BKK.sum((1, 2)).clamp(min=1)).mean()
