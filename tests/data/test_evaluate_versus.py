"""Paired differences between two models: what is called noise, and what is not."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

from llmkit.evaluate.results import Document, Member, Metric, TaskResult, values_of
from llmkit.evaluate.rows import interval_of
from llmkit.evaluate.versus import ALPHA, differences, holm, mcnemar, p_of, sign_flip
from llmkit.intervals import NUM_RESAMPLES, stratified_interval, wilson
from llmkit.stages.eval_command import Measured, warnings_of


def result(task: str, values, metric: str = "acc", **options) -> TaskResult:
    documents = [Document(i, "", "t", "", {metric: float(v)}) for i, v in enumerate(values)]
    return TaskResult(task, [Metric(metric, float(np.mean(values)), len(values), list(values), **options)], documents)


def test_mcnemar_is_the_exact_binomial_test():
    for gained, lost in [(10, 2), (0, 6), (5, 5), (0, 0), (31, 12)]:
        expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert mcnemar(gained, lost) == pytest.approx(expected)


def test_sign_flip_is_near_what_all_signs_give():
    changes = np.array([0.5, 0.2, -0.1, 0.4, 0.3, 0.0, 0.6, -0.2])
    sums = [abs(np.dot(signs, changes)) for signs in itertools.product((-1, 1), repeat=len(changes))]
    exact = np.mean([found >= abs(changes.sum()) - 1e-12 for found in sums])
    assert sign_flip(changes, 0) == pytest.approx(exact, abs=0.01)
    assert sign_flip(np.zeros(5), 0) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_a_real_difference_is_named_and_has_the_right_sign():
    rng = np.random.default_rng(0)
    weak = rng.random(300) < 0.4
    strong = weak | (rng.random(300) < 0.25)
    first, second = [result("a", strong.astype(int))], [result("a", weak.astype(int))]
    [found] = differences(first, second, ["a"], seed=0)
    assert found.verdict == "better" and found.low > 0 and found.delta == pytest.approx(np.mean(strong) - np.mean(weak))
    [back] = differences(second, first, ["a"], seed=0)
    assert back.verdict == "worse" and back.delta == -found.delta
    [loss] = differences([result("a", strong.astype(int), higher_is_better=False)], second, ["a"], seed=0)
    assert loss.verdict == "worse"


def test_of_ten_alike_tasks_few_runs_call_one_different():
    rng = np.random.default_rng(1)
    alarms = uncorrected = 0
    for _ in range(40):
        pairs = rng.random((2, 10, 80)) < 0.5
        first, second = ([result(f"t{i}", side[i].astype(int)) for i in range(10)] for side in pairs)
        found = differences(first, second, [f"t{i}" for i in range(10)], seed=0)
        alarms += any(each.verdict != "noise" for each in found)
        uncorrected += any(each.p_value < ALPHA for each in found)
    assert alarms <= 5 and uncorrected > 8


def test_documents_are_paired_by_place_and_target():
    first, second = result("a", [1, 1, 1, 1, 0]), result("a", [1, 1, 0])
    [found] = differences([first], [second], ["a"], seed=0)
    assert found.num_samples == 3 and found.delta == pytest.approx(1 / 3)
    other = TaskResult("a", second.metrics, [Document(d.doc_id, "", "other", "", d.metrics) for d in second.documents])
    assert differences([first], [other], ["a"], seed=0) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_figures_that_are_no_numbers_are_left_out(bad):
    found = differences([result("a", [bad, 1, 1, 1])], [result("a", [0, 0, 0, 0])], ["a"], seed=0)
    assert found == differences([result("a", [1] * 4)], [result("a", [bad, 0, 0, 0])], ["a"], seed=0) == []
    options = {"aggregate": lambda values: float(np.mean(values)), "higher_is_better": False}
    two = [result("a", values, **options) for values in ([0.0] * 9, [bad] + [1.0] * 8)]
    assert differences([two[0]], [two[1]], ["a"], seed=0) == []
    warnings = warnings_of(Measured("mine", [result("a", [bad])], 0, 0))
    assert warnings == [f"mine: a: acc is {bad} and is left out"]


def test_what_is_no_mean_is_compared_by_drawing_documents_for_both():
    rng = np.random.default_rng(0)
    losses = rng.random(60)
    options = {"aggregate": lambda values: float(np.exp(np.mean(values))), "higher_is_better": False}

    def made(values):
        documents = [Document(i, "", "t", "", {}) for i in range(60)]
        metric = Metric("ppl", options["aggregate"](values), 60, list(values), **options)
        return [TaskResult("a", [metric], documents)]

    [found] = differences(made(losses - 0.1), made(losses), ["a"], seed=0)
    assert found.verdict == "better" and found.low < found.delta < found.high < 0


def group(parts: dict[str, list[int]], by_size: bool) -> list[TaskResult]:
    tasks = [result(name, values) for name, values in parts.items()]
    total = sum(len(values) for values in parts.values())
    members = [
        Member(
            task.task,
            "acc",
            len(task.documents) / total if by_size else 1 / len(tasks),
            values_of(task.documents, "acc"),
        )
        for task in tasks
    ]
    value = sum(each.weight * np.mean(list(each.values.values())) for each in members)
    return [*tasks, TaskResult("g", [Metric("acc", value, total, members=members)])]


def test_a_group_has_an_interval_and_is_paired_through_its_tasks():
    parts = {"a": [1] * 30 + [0] * 10, "b": [1] * 2 + [0] * 8}
    pooled, macro = group(parts, by_size=True)[-1], group(parts, by_size=False)[-1]
    assert interval_of(pooled, pooled.metrics[0], 0) == wilson(32, 50)
    low, high = interval_of(macro, macro.metrics[0], 0)
    assert low < macro.metrics[0].value < high
    rng = np.random.default_rng(0)
    drawn = (rng.binomial(40, 0.75, NUM_RESAMPLES) / 40 + rng.binomial(10, 0.2, NUM_RESAMPLES) / 10) / 2
    assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.03)

    better = {"a": [1] * 40, "b": [1] * 8 + [0] * 2}
    found = differences(group(better, True), group(parts, True), ["g"], seed=0)
    assert [(each.task, each.verdict) for each in found] == [("g", "better"), ("a", "better"), ("b", "better")]
    # the group alone was asked for: it is corrected alone, its tasks with each other
    assert found[0].p_adjusted == found[0].p_value and found[2].p_adjusted >= found[2].p_value
    assert differences(group(better, False), group(parts, False), ["g"], seed=0)[0].delta == pytest.approx(0.425)


def test_uneven_weights_are_not_pooled():
    even, odd = [(0.5, [0.0, 1.0], [1.0, 1.0])] * 2, [(0.9, [0.0, 1.0], [1.0, 1.0]), (0.1, [0.0, 1.0], [1.0, 1.0])]
    assert p_of(even, 0) == mcnemar(2, 0)
    assert p_of(odd, 0) == pytest.approx(0.5, abs=0.03)
    assert stratified_interval([(0.5, [1.0]), (0.5, [1.0])], 0) == wilson(2, 2)
