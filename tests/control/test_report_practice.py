"""What the report says of practice and rejection sampling, with controls beside them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from control.practice_runs import (
    HELDOUT,
    NUM_STEPS,
    changed,
    heights,
    logged,
    practice_run,
    running,
    settings,
    stage_of,
)
from control.report_runs import (
    FENCED,
    Page,
    assert_no_text_becomes_html,
    assert_nothing_leaves_its_block,
    assert_whole,
    curve,
    full_run,
    log,
    page_of,
)

from llmkit.artifacts.files import write_text
from llmkit.artifacts.manifest import Curve, Sample
from llmkit.artifacts.rundir import RunDir
from llmkit.report.answers import sample_groups
from llmkit.report.build import build_report, report_json
from llmkit.report.chain import nodes
from llmkit.report.collect import collect
from llmkit.report.curves import curve_groups
from llmkit.report.figures import figures
from llmkit.report.plots import Line, budget_chart, step_chart
from llmkit.report.practice import Practised, attempts
from llmkit.report.practice import practised as practised_of
from llmkit.report.run import RunReport
from llmkit.report.settings import settings as all_settings
from llmkit.report.svg import line_chart, thin
from llmkit.report.words import did


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return practice_run(tmp_path_factory.mktemp("practice"))


def practised_in(report: RunReport, name: str) -> Practised:
    found = practised_of(report, stage_of(report, name))
    assert found is not None
    return found


# --- pictures while practising -------------------------------------------------------------------------------------


def test_the_two_pictures_of_each_held_out_set(report: RunReport) -> None:
    found = practised_in(report, "reason")
    assert [each.name for each in found.sets] == ["test", "longer"]
    assert [each.size for each in found.sets] == ["400 problems", "400 problems"]
    for each in found.sets:
        assert [picture.metric for picture in each.main] == ["accuracy", "num_tokens"]
        assert [picture.metric for picture in each.rest] == ["answered", "truncated"]
    accuracy, length = found.sets[0].main
    assert (accuracy.told, length.told) == ("40.5\u202f% \u2192 68.5\u202f%", "58.9 \u2192 92.6")
    assert (accuracy.name, length.name) == ("accuracy, %", "answer length, tokens")
    drawn = heights(accuracy.chart, "after")
    assert len(drawn) == 6
    assert drawn == sorted(drawn, reverse=True)  # it rises: y points down
    assert "those between of the first 200" in found.note


def test_accuracy_is_drawn_in_per_cent_from_zero(report: RunReport) -> None:
    chart = practised_in(report, "reason").sets[0].main[0].chart
    texts = re.findall(r'class="tick end"[^>]*>([^<]+)<', chart)
    assert texts[:5] == ["0", "20", "40", "60", "80"]


def test_bars_stand_at_both_ends_and_between_where_they_were_measured(tmp_path: Path, report: RunReport) -> None:
    chart = practised_in(report, "reason").sets[0].main[0].chart
    assert chart.count('class="bound after"') == 2
    run = practice_run(tmp_path)
    made = run.stage(6, "reason").manifest()
    assert made is not None
    (line,) = (each for each in made.curves if each.name == "test/accuracy")
    more = [
        Curve(name=f"test/accuracy_{end}", x="step", y="", points=[(x, y + by) for x, y in line.points])
        for end, by in (("low", -0.05), ("high", 0.05))
    ]
    changed(run, 6, "reason", curves=[*made.curves, *more])
    pictures = practised_in(collect(run), "reason").sets
    assert [len(each.main) for each in pictures] == [2, 2]
    assert pictures[0].main[0].chart.count('class="bound after"') == 6


def test_a_control_is_drawn_beside_and_told_beside(report: RunReport) -> None:
    found = practised_in(report, "reason")
    assert found.keys == (("after", "reason"), ("other-0", "control-random"))
    assert found.controls == ("control-random",)
    chart = found.sets[0].main[0].chart
    assert len(heights(chart, "other-0")) == 6
    assert chart.index('series other-0"') < chart.index('series after"')  # the method's line lies on top
    accuracy = next(line for line in found.lines if (line.name, line.key) == ("test", "accuracy"))
    assert [each.text for each in accuracy.beside] == ["39.8\u202f%"]
    alone = practised_in(report, "control-random")
    assert alone.keys == ()
    assert alone.controls == ()
    assert 'class="series other' not in alone.sets[0].main[0].chart


def test_a_control_of_another_model_is_not_beside(tmp_path: Path) -> None:
    run = practice_run(tmp_path)
    made = run.stage(8, "control-random").manifest()
    assert made is not None
    assert made.parent is not None
    changed(run, 8, "control-random", parent=made.parent.model_copy(update={"stage": "sft"}))
    found = practised_in(collect(run), "reason")
    assert (found.keys, found.controls) == ((), ())


def test_held_out_numbers_before_and_after(report: RunReport) -> None:
    found = practised_in(report, "reason")
    lines = {(line.name, line.key): line for line in found.lines}
    accuracy = lines["test", "accuracy"]
    assert (str(accuracy.before), str(accuracy.after)) == (
        "40.5\u202f% (35.7\u201345.3)", "68.5\u202f% (63.9\u201373.1)"
    )  # fmt: skip
    assert accuracy.change is not None
    assert (accuracy.change.verdict, accuracy.change.colour, accuracy.is_share) == ("up", "better", True)
    longer = lines["longer", "accuracy"].change
    assert longer is not None
    assert longer.verdict == "unclear"
    assert [lines["test", key].after.text for key in ("answered", "truncated")] == ["97.0\u202f%", "1.0\u202f%"]
    length = lines["test", "num tokens"]
    assert length.change is not None
    assert (str(length.after), length.is_share, length.change.colour) == ("92.6 (91.1\u201394.1)", False, "neutral")
    assert [key for name, key in lines if name == "test"] == [
        "accuracy", "answered", "truncated", "num tokens", "pass@1", "pass@8", "maj@8"
    ]  # fmt: skip
    assert [line.key for line in found.rest if line.name == "test"] == ["pass@2", "pass@4", "maj@4"]


def test_practice_that_still_runs_is_drawn_from_its_log(tmp_path: Path) -> None:
    run = running(tmp_path)
    report = collect(run)
    found = practised_in(report, "reason")
    assert {each.name for each in found.sets} == set(HELDOUT)
    assert len(heights(found.sets[0].main[0].chart, "after")) == 3
    assert "bound" not in found.sets[0].main[0].chart
    assert (found.lines, found.keys) == ((), ())
    page = page_of(run)
    assert "Unfinished; last seen at step 50 of 120, phase train" in page.text
    assert "Held-out problems: test" in page.text
    assert "| 48 | 60.1\u202f% | 82.4 |" in run.report.with_suffix(".md").read_text(encoding="utf-8")


def test_a_stage_without_curves_is_drawn_from_its_log_too(tmp_path: Path) -> None:
    run = practice_run(tmp_path)
    changed(run, 6, "reason", curves=[])
    assert len(heights(practised_in(collect(run), "reason").sets[0].main[0].chart, "after")) == 6


def test_all_of_it_is_on_the_page(page: Page) -> None:
    pictures = " ".join(page.all("aria-label"))
    for metric in ("accuracy, %", "answer length, tokens", "answers in the demanded form, %", "cut off, %"):
        assert f"{metric} on test against step: " in pictures
    assert "pass@1 30.0\u202f%, pass@2 39.6\u202f%" in pictures
    assert page.all("data-label").count("after control-random") == 2 * (7 + 3)
    for text in ("Held-out problems before and after", "6 more numbers", "+1.5 points, intervals overlap"):
        assert text in page.text, text
    # the control's line in 8 pictures with its key, and round-1's in pass@k and maj@k with its key
    assert page.all("class").count("series other-0") == 8 + 1 + 2 + 1
    assert "set aside from training. Bars are" in page.text


def test_sets_stand_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    run = practice_run(tmp_path)
    told = settings("reason")
    changed(run, 6, "reason", settings={**told, "heldout": dict(reversed(list(told["heldout"].items())))})
    assert [each.name for each in practised_in(collect(run), "reason").sets] == ["longer", "test"]


def test_a_set_may_have_slashes_and_be_left_without_curves(tmp_path: Path) -> None:
    run = practice_run(tmp_path)
    numbers = {"heldout/a/b/before/accuracy": 0.2, "heldout/a/b/after/accuracy": 0.1, "heldout/odd": 1.0}
    changed(run, 6, "reason", curves=[], metrics=numbers)
    write_text(run.stage(6, "reason").metrics, "")
    found = practised_in(collect(run), "reason")
    assert found.sets == ()
    assert [(line.name, line.key, str(line.after)) for line in found.lines] == [("a/b", "accuracy", "10.0\u202f%")]
    changed(run, 6, "reason", curves=[], metrics={})
    assert practised_of(collect(run), stage_of(collect(run), "reason")) is None
    page_of(run)


# --- training curves -----------------------------------------------------------------------------------------------


def test_curves_of_practice_in_words_and_folded(report: RunReport, page: Page) -> None:
    (group,) = curve_groups(stage_of(report, "reason"))
    assert [shown.key for shown in group.first] == [
        "reward", "completions/mean_length", "entropy", "practice/useful_groups", "completions/clipped_ratio", "kl"
    ]  # fmt: skip
    assert [shown.key for shown in group.rest] == [
        "grad_norm", "rewards/brief/mean", "rewards/exact/mean", "exact/found_any", "clip_ratio/region_mean",
        "practice/sampled_tokens", "learning_rate", "loss",
    ]  # fmt: skip
    assert group.rest[3].words.name == "exact: found any"
    useful = group.first[3]
    assert re.fullmatch(r"[\d.]+\u202f% \u2192 [\d.]+\u202f%", useful.told)
    assert re.findall(r'class="tick end"[^>]*>(\d+)<', useful.chart)[0] == "50"
    assert group.first[2].told.startswith("0.6")
    assert "8 more curves" in page.text
    assert "How open the next token is" in page.text
    assert "reward exact" in page.text
    assert "practice/useful_groups" in page.all("title")


def test_a_share_that_stays_is_drawn_between_0_and_100_per_cent() -> None:
    for share in (0.0, 1.0):
        chart = line_chart("useful groups", thin([1, 2, 3], [share] * 3), is_share=True)
        assert all(0 <= float(tick) <= 100 for tick in re.findall(r'class="tick end"[^>]*>([^<]+)<', chart))


def test_a_reward_that_applies_to_no_answer_is_no_warning(tmp_path: Path, report: RunReport) -> None:
    assert stage_of(report, "reason").notes == ()
    assert math.isnan(next(c for c in stage_of(report, "reason").curves if c.key == "rewards/brief/mean").values[6])
    run = running(tmp_path)
    rows = logged("reason", 20)
    rows[4]["kl"] = math.nan
    log(run.stage(6, "reason").metrics, rows)
    assert stage_of(collect(run), "reason").notes == (
        "kl was not a finite number at 1 of 20 logged steps, first at step 5.",
    )


def test_other_kinds_have_the_curves_that_they_had(tmp_path: Path) -> None:
    run = full_run(tmp_path)
    log(run.stage(4, "sft").metrics, [{**row, "entropy": 1.0, "reward": 2.0, "test/accuracy": 0.5} for row in curve(9)])
    (group,) = curve_groups(stage_of(collect(run), "sft"))
    assert [shown.key for shown in group.first] == ["loss", "learning_rate", "grad_norm"]
    assert group.rest == ()
    assert group.first[0].words.name == "loss"


# --- what is said --------------------------------------------------------------------------------------------------


def test_the_story_of_practice(report: RunReport) -> None:
    text = did(stage_of(report, "reason"))
    assert text.replace("\u202f", " ").endswith(
        "It drew on 1 200 problems, sampled 7 680 answers in groups of 8 and scored them by exact and brief (weight "
        "0.1); greedy accuracy rose from 40.5 % to 68.5 % on test and did not clearly change on longer (6.0 % to "
        "7.5 %)."
    )
    assert "A control" not in text
    assert "A control: it shows what is reached without the method." in did(stage_of(report, "control-random"))


def test_the_story_says_only_what_is_known(tmp_path: Path) -> None:
    run = practice_run(tmp_path)

    def told(metrics: dict[str, float], settings: dict[str, object]) -> str:
        changed(run, 6, "reason", metrics=metrics, settings=settings)
        return did(stage_of(collect(run), "reason")).partition("on cpu.")[2].strip()

    assert told({}, {}) == ""
    assert told({"sampled_groups": 1.0, "problems": 1.0}, {}) == "It drew on 1 problem and sampled 1 group of answers."
    fell = {"before/accuracy": 0.5, "before/accuracy_low": 0.45, "before/accuracy_high": 0.55}
    fell |= {"after/accuracy": 0.2, "after/accuracy_low": 0.15, "after/accuracy_high": 0.25}
    numbers = {f"heldout/test/{key}": value for key, value in fell.items()}
    assert told(numbers, {}) == "Greedy accuracy fell from 50.0\u202f% to 20.0\u202f% on test."


def test_counts_of_practice(report: RunReport) -> None:
    made = stage_of(report, "reason").manifest
    assert made is not None
    found = {figure.name: (figure.value, figure.under) for figure in figures(made)}
    assert found == {
        "problems": ("1\u202f200", "to draw from"),
        "sampled answers": ("7\u202f680", "960 groups of 8"),
        "useful groups": ("61.3\u202f%", "with better and worse answers"),
        "sampled tokens": ("561\u202f234", ""),
        "steps": ("120", ""),
        "train time": ("21\u202fmin 52\u202fs", ""),
    }


def test_the_chain_shows_what_was_sampled_and_which_is_a_control(report: RunReport) -> None:
    found = {node.name: node for node in nodes(report)}
    assert (found["reason"].kind, found["reason"].tokens) == ("practice", "561k tokens sampled")
    assert (found["reason"].task, found["reason"].change) == ("problems solved", "+28.0 points")
    assert (found["control-random"].kind, found["control-random"].change) == ("control, from round-1", "")
    assert (found["best"].tokens, found["best"].makes_model) == ("712 rows", False)
    assert report.final == "reason"


def test_rollouts_stand_under_headings(report: RunReport, page: Page) -> None:
    groups = sample_groups(stage_of(report, "reason"))
    late = [f"{kind} of the last steps" for kind in ("Best", "Worst", "Longest")]
    assert [(group.heading, len(group.samples)) for group in groups] == [(name, 3) for name in ("First step", *late)]
    assert groups[1].samples[0][0] == "step 118, reward 1.02, 88 tokens"
    for text in ("Longest of the last steps", "step 117, reward 0, 256 tokens, cut off", "33 - 9 = 24."):
        assert text in page.text, text
    (plain,) = sample_groups(stage_of(report, "sft"))
    assert plain.heading == ""
    assert plain.samples[0][0] == "training row"


def test_what_rejection_sampling_came_to(report: RunReport, page: Page) -> None:
    stage = stage_of(report, "best")
    assert did(stage) == (
        "Had sft answer every problem 8 times, and kept right answers as training rows. 1\u202f200 problems gave 712 "
        "rows; 427 were never solved, and 61 were left out as too easy."
    )
    made = stage.manifest
    assert made is not None
    assert [(figure.name, figure.value, figure.under) for figure in figures(made)] == [
        ("problems", "1\u202f200", ""),
        ("never solved", "427", "35.6\u202f% of the problems"),
        ("too easy", "61", "5.1\u202f% of the problems"),
        ("rows kept", "712", ""),
        ("problems per second", "3.40", ""),
    ]
    found = attempts(made)
    assert found is not None
    assert found.ks == (1, 2, 4, 8)
    assert [(name, shares) for _, name, shares in found.rows] == [
        ("pass@k", ("30.0\u202f%", "39.6\u202f%", "51.0\u202f%", "63.5\u202f%")),
        ("maj@k", ("", "", "36.0\u202f%", "41.0\u202f%")),
    ]
    assert found.chart.count('class="series') == 2
    assert [(group.heading, len(group.samples)) for group in sample_groups(stage)] == [("Kept answers", 1)]
    assert "Kept answers" in page.text
    assert attempts(made.model_copy(update={"metrics": {"pass@1": 0.5}})) is None


def test_nothing_is_said_of_tokens_that_nobody_counted(tmp_path: Path, page: Page) -> None:
    assert page.text.count("of them trained") == 2  # of the two sft stages
    run = practice_run(tmp_path)
    build_report(run)
    assert run.report.with_suffix(".md").read_text(encoding="utf-8").count(" trained, 0 rows truncated") == 2


def test_settings_of_rewards_are_short() -> None:
    found = {setting.key: setting.value for setting in all_settings("grpo", settings("reason"))}
    assert found["rewards"].startswith('[{"name": "exact", "weight": 1.0}, {"path": "my_rewards:brief", "weight": 0.1}')


# --- pictures, pages, other forms ----------------------------------------------------------------------------------


def test_pictures_bear_odd_numbers() -> None:
    odd = ((float("nan"), 0.5), (4.0, float("inf")), (2.0, 0.25), (1.0, 0.125))
    bounds = ((1.0, float("nan"), 0.5), (2.0, 0.2, 0.3))
    for chart in (
        step_chart("odd", [Line("after", odd, bounds), Line("before", ())], True),
        step_chart("empty", [], False),
        step_chart("one", [Line("after", ((0.0, 0.0),))], True),
        step_chart("large", [Line("after", ((0.0, 1e9), (10.0, 3e9)))], False),
        budget_chart("one", [Line("after", ((1.0, 1.0),))]),
        budget_chart("none", []),
    ):
        assert not re.search(r"\bnan\b|\binf\b", chart)
        assert all(0 <= float(y) <= 250 for y in re.findall(r'c?y1?="([-\d.]+)"', chart))
    assert step_chart("odd", [Line("after", odd, bounds)], True).count('class="bound') == 1


def test_the_page_is_whole_and_in_order(run: RunDir, page: Page) -> None:
    order = ["results", "problems", "stage-sft", "stage-best", "stage-reason", "stage-control-random", "evaluations"]
    assert_whole(page, order)
    assert "below 0.1: nearly all groups" in page.text


def test_text_of_models_never_becomes_html(tmp_path: Path) -> None:
    assert_no_text_becomes_html(practice_run, tmp_path, 60)


def test_text_of_models_cannot_leave_its_block_in_markdown(tmp_path: Path) -> None:
    assert_nothing_leaves_its_block(practice_run(tmp_path, FENCED))


def test_markdown_tells_the_same(run: RunDir) -> None:
    build_report(run)
    text = run.report.with_suffix(".md").read_text(encoding="utf-8")
    for part in (
        "## Problems",
        "- control-random is clearly worse: accuracy 39.8",
        "| level 10 | 12.5\u202f%",
        "| 0 | 40.5\u202f% | 58.9 |\n",
        "| 120 | 68.5\u202f% | 92.6 |\n",
        "| held-out problems |  | before | after | after control-random (control) |",
        "| test, 400 problems | accuracy | 40.5\u202f% (35.7\u201345.3) | 68.5\u202f% (63.9\u201373.1) | 39.8",
        "| k | 1 | 2 | 4 | 8 |",
        "sampled answers 7\u202f680 (960 groups of 8)",
        "Longest of the last steps: step 117, reward 0, 256 tokens, cut off",
        "greedy accuracy rose from",
    ):
        assert part in text, part


def test_json_carries_curves_and_held_out_numbers(run: RunDir) -> None:
    stages = {stage["name"]: stage for stage in report_json(run)["stages"]}
    reason = stages["reason"]
    assert reason["metrics"]["heldout/test/after/accuracy"] == 0.685
    assert reason["metrics"]["sampled_tokens"] == 561_234
    curve = next(each for each in reason["curves"] if each["name"] == "test/accuracy")
    assert (curve["points"][0], curve["points"][-1]) == ((0.0, 0.405), (NUM_STEPS, 0.685))
    assert stages["best"]["metrics"]["pass@8"] == pytest.approx(0.635, abs=1e-3)
    last = [row for row in report_json(run)["evals"] if row["metric"] == "pass@16"][-1]
    assert (last["stage"], last["delta_from"]) == ("reason", "round-1")
    json.dumps(report_json(run), allow_nan=False)


def test_a_page_without_samples_or_labels(tmp_path: Path) -> None:
    run = practice_run(tmp_path)
    changed(run, 6, "reason", samples=[Sample(prompt="Why?", completion="  ", label="odd")])
    (group,) = sample_groups(stage_of(collect(run), "reason"))
    assert (group.heading, group.samples[0][0]) == ("Odd", "")
    assert "(nothing)" in page_of(run).text
