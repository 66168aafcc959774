"""What the report says of evaluations on problems: models and controls, pass@k and maj@k, levels."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from control.practice_runs import changed, heights, practice_run, practised, problem_rows
from control.report_runs import Page, page_of

from llmkit.artifacts.files import write_text
from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.rundir import RunDir
from llmkit.report.collect import collect
from llmkit.report.compare import headlines
from llmkit.report.metrics import budget, direction, group_of, is_between, is_share
from llmkit.report.plots import Line, budget_chart
from llmkit.report.problems import Solving, solving
from llmkit.report.readings import solving_reading


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return practice_run(tmp_path_factory.mktemp("problems"))


def one(run: RunDir) -> Solving:
    (found,) = solving(collect(run))
    return found


@pytest.mark.parametrize(
    ("metric", "better", "share"),
    [
        ("accuracy", "higher", True),
        ("answered", "higher", True),
        ("truncated", "lower", True),
        ("num_tokens", None, False),
        ("pass@16", "higher", True),
        ("maj@4", "higher", True),
        ("accuracy, level 3", "higher", True),
        ("accuracy, kind loss and perplexity", "higher", True),
        ("accuracy, kind wrong tokens", "higher", True),
    ],
)
def test_directions_and_shares_of_problems(metric: str, better: str | None, share: bool) -> None:
    assert direction(metric) == better
    assert is_share(metric, [0.5]) is share


def test_budgets_and_groups_are_read_from_names() -> None:
    assert [budget(name) for name in ("pass@8", "maj@16", "pass@x", "recall@5", "accuracy")] == [
        ("pass", 8), ("maj", 16), None, None, None
    ]  # fmt: skip
    names = ["accuracy", "pass@1", "pass@2", "pass@4", "maj@4", "maj@8"]
    assert [name for name in names if is_between(name, names)] == ["pass@2", "maj@4"]
    assert [group_of(name, "level") for name in ("accuracy, level 3", "accuracy, kind 3", "accuracy")] == [
        "3", None, None
    ]  # fmt: skip
    assert group_of("accuracy, level 3", None) is None


def test_accuracy_stands_for_problems_wherever_it_was_written(tmp_path: Path) -> None:
    run = practice_run(tmp_path)
    for index, model in ((2, "sft"), (5, "round-1"), (7, "reason")):
        rows = problem_rows(model, None)
        changed(run, index, f"eval-{model}", evals=rows[::-1])
    (line,) = headlines(collect(run))
    assert (line.task, line.metric, line.name, line.is_share) == ("problems", "accuracy", "problems solved", True)


def test_models_and_controls_beside_each_other(run: RunDir, page: Page) -> None:
    found = one(run)
    assert [(column.name, column.is_control) for column in found.columns] == [
        ("sft", False), ("round-1", False), ("reason", False), ("control-random", True)
    ]  # fmt: skip
    assert [line.metric for line in found.main] == [
        "accuracy", "answered", "truncated", "num_tokens", "pass@1", "pass@16", "maj@16"
    ]  # fmt: skip
    assert [line.metric for line in found.rest] == ["pass@2", "pass@4", "maj@4", "pass@8", "maj@8"]
    assert all(line.reading for line in (*found.main, *found.rest))
    assert [text.replace("\u202f", " ").replace("\u2013", "-") for text in found.verdicts] == [
        "control-random is clearly worse: accuracy 39.8 % (35.0-44.5) against 68.5 % (63.9-73.1) of reason."
    ]
    truncated = found.main[2]
    assert (truncated.better, truncated.is_share) == ("lower is better", True)
    assert (found.main[3].better, found.main[3].is_share) == ("", False)
    for text in ("+28.0 points", "\u22121.0 points", "+33.7", "5 more budgets", "from round-1", "is clearly worse"):
        assert text in page.text, text


def test_levels_are_a_table_in_natural_order(run: RunDir, page: Page) -> None:
    found = one(run)
    assert (found.by, [line.metric for line in found.levels]) == ("level", ["level 1", "level 2", "level 10"])
    assert [line.num_samples for line in found.levels] == [150, 150, 100]
    assert "Accuracy by level" in page.text
    assert page.text.index("level 2150") < page.text.index("level 10100")  # with the number of problems
    assert not {line.metric for line in found.main} & {"accuracy, level 1"}


def test_pass_and_maj_are_drawn_by_budget(run: RunDir, page: Page) -> None:
    found = one(run)
    assert [title for title, _ in found.pictures] == ["pass@k, %", "maj@k, %"]
    assert dict(found.keys) == {
        "before": "sft", "other-0": "round-1", "after": "reason", "other-1": "control-random"
    }  # fmt: skip
    chart = found.pictures[0][1]
    assert chart.count('class="series') == 4
    assert chart.count('class="bound after"') == 5
    assert chart.index('series before"') < chart.index('series after"')
    assert heights(chart, "after")[0] < heights(chart, "before")[0]
    assert "pass@k of problems: sft 1: 29.1\u202f%, 2: 48.4\u202f%" in " ".join(page.all("aria-label"))


def test_accuracy_is_drawn_against_the_tokens_of_reasoning(tmp_path: Path) -> None:
    run = practice_run(tmp_path)
    for index, model in ((2, "sft"), (7, "reason")):
        rows = problem_rows(model, None)
        accuracy = next(row for row in rows if row.metric == "accuracy")
        thought = [
            accuracy.model_copy(update={"metric": f"accuracy, thinking {budget}", "value": value})
            for budget, value in ((0, 0.1), (16, 0.4 if model == "sft" else 0.6), (64, 0.9))
        ]
        changed(run, index, f"eval-{model}", evals=[*(row for row in rows if "@" not in row.metric), *thought])
    found, page = one(run), page_of(run)
    assert [line.metric for line in found.thinking] == [f"accuracy, thinking {budget}" for budget in (0, 16, 64)]
    assert found.thinking[1].reading == "The greedy answer is right after at most 16 tokens of reasoning."
    assert not {line.metric for line in found.main} & {"accuracy, thinking 16"}
    assert dict(found.thinking_keys) == {"before": "sft", "after": "reason"}
    assert found.thinking_picture is not None and found.thinking_picture.count('class="series') == 2
    told = " ".join(page.all("aria-label"))
    assert "accuracy of problems against tokens of reasoning: sft 0: 10.0\u202f%, 16: 40.0" in told
    assert "tokens of reasoning, at most" in page.text and "Accuracy against reasoning" in page.text
    assert "### Accuracy against reasoning" in (run.path / "report.md").read_text(encoding="utf-8")


def test_k_doubles_from_mark_to_mark() -> None:
    chart = budget_chart("k", [Line("after", ((1, 0.2), (2, 0.3), (4, 0.4), (12, 0.6)))])
    places = [float(x) for x in re.findall(r'<circle[^>]*cx="([\d.]+)"', chart)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    assert places[3] - places[2] == pytest.approx((places[1] - places[0]) * math.log2(3), abs=0.2)
    assert re.findall(r">(\d+)</text>", chart)[-5:-1] == ["60", "1", "2", "4"] or "8" in re.findall(
        r">(\d+)</text>", chart
    )


def test_without_samples_there_is_no_picture(tmp_path: Path) -> None:
    run = practice_run(tmp_path)
    for index, model in ((2, "sft"), (5, "round-1"), (7, "reason"), (9, "control-random")):
        greedy = [row for row in problem_rows(model, None) if "@" not in row.metric]
        changed(run, index, f"eval-{model}", evals=greedy)
    found = one(run)
    assert (found.pictures, found.keys, found.rest) == ((), (), ())
    assert "Solved within k answers" in page_of(run).text  # of the rejection sampling alone
    assert page_of(run).text.count("Solved within k answers") == 1


def test_several_evaluations_on_problems(tmp_path: Path) -> None:
    run = practice_run(tmp_path)
    made = run.stage(7, "eval-reason").manifest()
    assert made is not None
    evals = [*made.settings["evals"], {"task": "problems", "name": "gsm8k"}]
    rows = [*made.evals, *problem_rows("reason", None, task="gsm8k")]
    changed(run, 7, "eval-reason", settings={**made.settings, "evals": evals}, evals=rows)
    first, second = solving(collect(run))
    assert (first.task, second.task) == ("problems", "gsm8k")
    assert [column.name for column in second.columns] == ["reason"]
    assert (second.by, second.levels) == ("", ())
    assert "accuracy, level 1" in [line.metric for line in second.main]  # nothing says what it is told apart by
    page = page_of(run)
    assert {"problems", "problems-gsm8k"} <= set(page.all("id"))
    assert {"#problems", "#problems-gsm8k"} <= set(page.all("href"))
    assert "gsm8k solved" in page.text


def test_only_a_control_was_measured(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "assistant")
    write_text(run.recipe, "run: {name: assistant}\n")
    practised(run, 1, "control-random", 2)
    rows = problem_rows("control-random", None)
    write_manifest(run.stage(2, "eval").path, Manifest(stage="eval", kind="evaluate", fingerprint="f", evals=rows))
    assert solving(collect(run)) == []
    page_of(run)


def test_every_metric_of_problems_has_a_reading() -> None:
    assert solving_reading("pass@1") == "A sampled answer is right."
    assert solving_reading("pass@4") == "Of 4 sampled answers at least one is right."
    assert solving_reading("maj@4") == "Of 4 sampled answers the most frequent one is right."
    assert solving_reading("latency") == ""
