"""Intervals: published values, coverage by simulation, edge cases."""

import numpy as np
import pytest

from llmkit.evaluate.results import Document, Metric, TaskResult, write_documents
from llmkit.evaluate.rows import eval_rows
from llmkit.intervals import bootstrap, mean_interval, means_of, newcombe_paired, paired_interval, wilson


@pytest.mark.parametrize(
    ("successes", "num", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, 857, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes, num, low, high):
    assert wilson(successes, num) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("before_rate", "gain", "loss"), [(0.5, 0.3, 0.1), (0.9, 0.8, 0.05), (0.2, 0.05, 0.02)])
def test_paired_interval_covers_the_true_difference(before_rate, gain, loss):
    rng = np.random.default_rng(0)
    truth = (1 - before_rate) * gain - before_rate * loss
    covered = 0
    for _ in range(600):
        before = rng.random(80) < before_rate
        after = np.where(before, rng.random(80) >= loss, rng.random(80) < gain)
        low, high = newcombe_paired(before.tolist(), after.tolist())
        covered += low <= truth <= high
    assert 0.925 < covered / 600 < 0.99


def test_pairing_narrows_the_interval():
    before = [1.0] * 40 + [0.0] * 60
    after = [1.0] * 40 + [1.0] * 5 + [0.0] * 55
    paired = paired_interval(before, after, seed=0)
    shuffled = paired_interval(before, after[::-1], seed=0)
    assert paired is not None and shuffled is not None
    assert paired[1] - paired[0] < 0.7 * (shuffled[1] - shuffled[0])


def test_no_change_at_all_still_leaves_doubt():
    low, high = newcombe_paired([1.0] * 10, [1.0] * 10)
    assert low < -0.2 and high > 0.2


def test_bootstrap_of_a_mean_is_near_the_normal_interval_and_repeatable():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400).tolist()
    low, high = mean_interval(values, seed=0) or (0.0, 0.0)
    half = 1.96 * np.std(values) / 20
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.03)
    assert mean_interval(values, seed=0) == (low, high)
    assert mean_interval([0.3], seed=0) is None


def test_means_with_their_intervals():
    found = means_of({"right": [1.0, 0.0, 1.0, 1.0], "length": [7.0], "none": []})
    low, high = mean_interval([1, 0, 1, 1], seed=0)
    assert found == {"right": 0.75, "right_low": low, "right_high": high, "length": 7.0}


def test_bootstrap_of_an_aggregate():
    low, high = bootstrap([(-1.0, 2)] * 30 + [(-3.0, 2)] * 30, lambda pairs: -sum(p[0] for p in pairs) / len(pairs), 0)
    assert low < 2.0 < high


def result(scores: list[float], targets: list[str] | None = None) -> TaskResult:
    documents = [
        Document(index, f"q{index}", (targets or ["t"] * len(scores))[index], "c", {"accuracy": score})
        for index, score in enumerate(scores)
    ]
    return TaskResult("facts", [Metric("accuracy", sum(scores) / len(scores), len(scores), scores)], documents)


def test_rows_pair_documents_by_id_and_target(tmp_path):
    write_documents(tmp_path, result([0, 0, 0, 1]))
    [row] = eval_rows(
        [result([1, 1, 0, 1], ["t", "t", "t", "other"])], "sft", seed=0, compare_with=tmp_path, delta_from="base"
    )
    assert (row.stage, row.task, row.metric, row.value, row.num_samples) == ("sft", "facts", "accuracy", 0.75, 4)
    assert row.delta == pytest.approx(2 / 3)  # the fourth document has another target now
    assert row.delta_from == "base"
    assert row.delta_low is not None and row.delta_low < 2 / 3 < (row.delta_high or 0)
    assert row.low is not None and row.low < 0.75 < (row.high or 0)


def test_a_first_evaluation_has_no_difference(tmp_path):
    [row] = eval_rows([result([1, 0])], "base", seed=0, compare_with=tmp_path, delta_from="base")
    assert (row.delta, row.delta_from) == (None, None)


def test_a_value_that_is_no_number_is_reported_not_kept():
    warned: list[str] = []
    broken = TaskResult("wiki", [Metric("word_perplexity", float("inf"), 3, [1.0, 2.0, 3.0], max)])
    assert eval_rows([broken], "base", seed=0, warn=warned.append) == []
    assert warned == ["wiki: word_perplexity is inf and is left out"]
