"""Losses over rankings: against pairs one by one, against orders counted out, and with gaps in the batch."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
import torch
import torch.nn.functional as F

from llmkit.modeling.ranking_loss import Ranked, centering, pairwise, plackett_luce


def ranked(*rankings: list[list[int]]) -> Ranked:
    """Rankings of each prompt, filled up with 0."""
    raters, places = max(map(len, rankings)), max(len(ranks) for own in rankings for ranks in own)
    rows = [[[*r, *[0] * (places - len(r))] for r in own] + [[0] * places] * (raters - len(own)) for own in rankings]
    return Ranked(torch.tensor(rows))


def test_pairwise_is_the_mean_over_all_pairs() -> None:
    scores = torch.randn(3, 5, dtype=torch.float64)
    orders = [[[3, 1, 2, 5, 4]], [[1, 2, 3, 4, 5]], [[5, 4, 3, 2, 1]]]
    expected = []
    for row, ([ranks]) in zip(scores, orders, strict=True):
        for i, j in combinations(range(5), 2):
            better, worse = (i, j) if ranks[i] < ranks[j] else (j, i)
            expected.append(-F.logsigmoid(row[better] - row[worse]))
    assert torch.allclose(pairwise(scores, ranked(*orders)), torch.stack(expected).mean())


def test_a_prompt_counts_once_however_many_answers_and_raters_it_has() -> None:
    scores = torch.tensor([[1.0, 0.0, 7.0], [2.0, 5.0, 3.0]])
    few, many = ranked([[1, 2]]), ranked([[3, 1, 2], [3, 1, 2]])
    both = pairwise(scores, ranked([[1, 2]], [[3, 1, 2], [3, 1, 2]]))
    assert torch.allclose(both, (pairwise(scores[:1, :2], few) + pairwise(scores[1:], many)) / 2)


def test_raters_who_contradict_each_other_leave_no_gradient_at_equal_scores() -> None:
    scores = torch.zeros(1, 3, requires_grad=True)
    pairwise(scores, ranked([[1, 2, 3], [3, 2, 1]])).backward()
    assert scores.grad is not None
    assert torch.allclose(scores.grad, torch.zeros(1, 3))


@pytest.mark.parametrize("ties", ["drop", "equal"])
def test_ties(ties: str) -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5]], requires_grad=True)
    loss = pairwise(scores, ranked([[1, 1, 2]]), ties=ties)
    pairs = [-F.logsigmoid(torch.tensor(d)) for d in (1.5, -1.5)]
    tied = 0.5 * (-F.logsigmoid(torch.tensor(3.0)) - F.logsigmoid(torch.tensor(-3.0)))
    expected = sum(pairs) / 2 if ties == "drop" else (sum(pairs) + tied) / 3
    assert torch.allclose(loss, torch.as_tensor(expected))


def test_an_order_of_ties_alone_costs_nothing_and_is_no_nan() -> None:
    scores = torch.randn(1, 3, requires_grad=True)
    for loss in (pairwise(scores, ranked([[1, 1, 1]])), plackett_luce(scores, ranked([[1, 1, 1]]))):
        loss.backward()
        assert loss == 0
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros(1, 3))


def test_margin_and_label_smoothing_change_the_loss_as_they_say() -> None:
    scores, order = torch.tensor([[1.0, 0.0, -1.0]]), ranked([[1, 2, 3]])
    differences, gaps = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])
    assert torch.allclose(pairwise(scores, order, margin=0.5), -F.logsigmoid(differences - 0.5 * gaps).mean())
    smoothed = 0.9 * -F.logsigmoid(differences) + 0.1 * -F.logsigmoid(-differences)
    assert torch.allclose(pairwise(scores, order, label_smoothing=0.1), smoothed.mean())


def test_plackett_luce_is_the_chance_of_the_order() -> None:
    scores = torch.randn(1, 4, dtype=torch.float64)
    total = 0.0
    for order in permutations(range(4)):
        ranks = [order.index(i) + 1 for i in range(4)]
        total += float(torch.exp(-3 * plackett_luce(scores, ranked([ranks]))))
    assert total == pytest.approx(1)


def test_plackett_luce_of_two_is_pairwise() -> None:
    scores, order = torch.randn(4, 2), ranked([[1, 2]], [[2, 1]], [[1, 2]], [[2, 1]])
    assert torch.allclose(plackett_luce(scores, order), pairwise(scores, order))


def test_plackett_luce_draws_ties_together_and_stops_at_top() -> None:
    s = torch.tensor([0.3, -0.2, 1.0, 0.0])
    tied = (2 * torch.logsumexp(s, 0) - s[0] - s[1] + torch.logsumexp(s[2:], 0) - s[2]) / 3
    assert torch.allclose(plackett_luce(s[None], ranked([[1, 1, 2, 3]])), tied)
    first = torch.logsumexp(s, 0) - s[0]
    assert torch.allclose(plackett_luce(s[None], ranked([[1, 2, 3, 4]]), top=1), first)


def test_places_without_an_answer_get_no_gradient() -> None:
    for loss in (pairwise, plackett_luce, centering):
        scores = torch.randn(2, 4, requires_grad=True)
        loss(scores, ranked([[1, 2]], [[2, 1, 3, 4]])).backward()
        assert scores.grad is not None
        assert torch.isfinite(scores.grad).all()
        assert (scores.grad[0, 2:] == 0).all()
        assert (scores.grad[0, :2] != 0).all()


def test_centering_of_pairs_is_that_of_trl() -> None:
    scores = torch.randn(6, 2)
    assert torch.allclose(centering(scores, ranked(*[[[1, 2]]] * 6)), (scores.sum(1) ** 2).mean())
