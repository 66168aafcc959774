"""What the report says of practice against a reward model: what its guard saw and did, and the twin without one."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from control.practice_runs import changed, heights, stage_of
from control.preference_runs import (
    ALL_STEPS,
    EVERY,
    FELL,
    KEPT,
    OFF,
    STOPPED,
    guard_curves,
    preference_run,
    running,
    settings,
)
from control.report_runs import Page, page_of
from markupsafe import Markup

from llmkit.artifacts.rundir import RunDir
from llmkit.report.build import build_report
from llmkit.report.collect import collect
from llmkit.report.guard import Guarded, guarded
from llmkit.report.guard_plots import GaoFit, Track, distance_chart, gain_chart, scaled
from llmkit.report.run import RunReport
from llmkit.report.words import did

RLHF, OFF_STAGE = (8, "rlhf"), (10, "control-off")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return preference_run(tmp_path_factory.mktemp("guard"))


def guard_in(report: RunReport, name: str = "rlhf") -> Guarded:
    found = guarded(report, stage_of(report, name))
    assert found is not None
    return found


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u2212", "-")


def numbers(chart: Markup) -> list[str]:
    """Steps that stand beside points."""
    return re.findall(r'class="tick mid step-of"[^>]*>([^<]+)<', chart)


# --- words ---------------------------------------------------------------------------------------------------------


def test_a_stop_is_told_in_plain_words(report: RunReport) -> None:
    own = guard_in(report).own
    assert (own.css, own.title) == ("warn", "Stopped at step 64; step 40 was kept")
    assert [plain(text) for text in own.told] == [
        "Gold has fallen by 0.27 since step 40 while the reward model's score rose: it is being gamed.",
        "No look behind step 40 had better gold by more than its error, within the limits. Its gold is +1.07 since "
        "the start.",
        "Reward model rm: -0.0600 \u2192 1.59 at step 64.",
        "Gold, by gold: 0.0600 \u2192 0.858 at step 64, highest at step 40 with 1.13.",
        "True score, by taste, which decides nothing, was highest at step 40 (+1.05 since the start); what was kept "
        "has +1.05, 100 % of that.",
        "9 evaluations took 9.3 % of the training's time.",
        "Gao's curve d (\u03b1 - \u03b2 ln d), d = \u221aKL, fitted to gold, is highest at d = 3.87, beyond what was "
        "reached (3.84).",
    ]


def test_what_the_guard_tells_is_not_warned_of_twice(report: RunReport, page: Page) -> None:
    assert guard_in(report).own.warnings == (FELL,)
    assert guard_in(report).twins[0].warnings == (OFF,)
    assert "step 64: stopped:" not in page.text
    assert "it is being gamed" in page.text
    assert "Warnings" not in page.text[page.text.index("rlhf reward-model practice") :].partition("Settings")[0]


def test_another_warning_of_the_stage_stays(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    changed(run, *RLHF, warnings=[FELL, "the best step was 40, and 8 was kept"])
    assert "the best step was 40, and 8 was kept" in page_of(run).text


def test_a_guard_that_is_off_is_loud(report: RunReport, page: Page) -> None:
    (twin,) = guard_in(report).twins
    own = guard_in(report, "control-off").own
    for found in (twin, own):
        assert found.css == "bad"
        assert found.title.startswith("The guard was off: nothing watched whether the answers got worse")
        assert [plain(text) for text in found.told] == [
            "Reward model rm: -0.0600 \u2192 2.77 at step 240.",
            "True score, by taste: 1.30 \u2192 -1.22 at step 240, highest at step 40 with 2.35.",
        ]
    assert guard_in(report, "control-off").twins == ()
    assert page.all("class").count("told bad") == 2


def test_practice_that_went_to_its_end(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    made = stage_of(collect(run), "rlhf").manifest
    assert made is not None
    metrics = {**made.metrics, "guard_stopped": 0.0, "guard_best_step": 64.0}
    changed(run, *RLHF, metrics=metrics, warnings=[])
    own = guard_in(collect(run)).own
    assert (own.css, own.title) == ("", "Went to its end, step 64, without an alarm; step 64 was kept")
    assert plain(own.told[-3]).endswith("what was kept has +0.897, 85.4 % of that.")
    changed(run, *RLHF, metrics={**metrics, "guard_best_step": 0.0}, warnings=[])
    own = guard_in(collect(run)).own
    assert own.told[0] == "No step was better than the start: the stage's model is its input."


def test_a_stop_is_told_without_its_warning_too(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    changed(run, *RLHF, warnings=[])
    own = guard_in(collect(run)).own
    assert (own.css, own.title) == ("warn", "Stopped at step 64; step 40 was kept")


def test_practice_that_still_runs(tmp_path: Path) -> None:
    run = running(tmp_path)
    found = guard_in(collect(run))
    assert (found.own.title, found.own.told) == ("4 evaluations so far, the last at step 24", ())
    assert [title for title, _, _ in found.own.pictures] == ["against the distance from the start", "against the step"]
    assert "4 evaluations so far" in page_of(run).text


def test_practice_that_was_not_looked_at_yet(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    changed(run, *RLHF, curves=guard_curves(STOPPED, has_gold=True)[:0])
    run.stage(*RLHF).metrics.write_text("")
    assert guarded(collect(run), stage_of(collect(run), "rlhf")) is None
    page_of(run)


def test_the_story_of_the_stage(report: RunReport) -> None:
    text = plain(did(stage_of(report, "rlhf")))
    assert text.endswith(
        "It drew on 3 000 prompts, sampled 8 192 answers in groups of 16 and scored them by the reward model rm."
    )
    assert "A control: it shows" in did(stage_of(report, "control-off"))


# --- pictures ------------------------------------------------------------------------------------------------------


def test_proxy_gold_and_truth_are_drawn_against_the_distance(report: RunReport) -> None:
    (title, told, chart), _ = guard_in(report).own.pictures
    assert title == "against the distance from the start"
    assert plain(told).startswith("reward model rm -0.0600 \u2192 1.59, gold, by gold 0.0600 \u2192 0.858")
    for css in ("proxy", "gold", "true"):
        assert len(heights(chart, css)) == STOPPED // EVERY + 1
    assert heights(chart, "proxy")[-1] < heights(chart, "gold")[-1]  # y points down
    assert chart.count('class="ring"') == 1
    assert {"40", "64"} <= set(numbers(chart))


def test_points_follow_the_steps_where_the_distance_goes_back(report: RunReport) -> None:
    chart = guard_in(report).own.pictures[0][2]
    drawn = re.search(r'class="series gold" d="M([^"]+)"', chart)
    assert drawn is not None
    places = [float(point.split()[0]) for point in drawn[1].split("L")]
    assert places != sorted(places)


def test_the_y_axis_goes_below_zero(report: RunReport) -> None:
    chart = guard_in(report, "control-off").own.pictures[1][2]
    ticks = [plain(text) for text in re.findall(r'class="tick end"[^>]*>([^<]+)<', chart)]
    assert {"-2", "0", "2"} <= set(ticks)


def test_the_kept_step_is_marked_in_both_runs(report: RunReport) -> None:
    found = guard_in(report)
    own, twin = found.own.pictures[1][2], found.twins[0].pictures[1][2]
    assert "step 40 kept<" in own
    assert "step 40 kept by rlhf<" in twin
    assert own.count('class="kept"') == twin.count('class="kept"') == 1
    assert 'class="ring"' not in found.twins[0].pictures[0][2]


def test_gaos_curve_is_drawn_through_gold_alone(report: RunReport) -> None:
    found = guard_in(report)
    assert found.own.keys[-1] == ("fit", "Gao's curve, fitted to gold")
    assert 'class="series fit"' in found.own.pictures[0][2]
    # what is fitted where nothing measures gold is the reward model's own score
    assert "fit" not in dict(found.twins[0].keys)
    assert 'class="series fit"' not in found.twins[0].pictures[0][2]


def test_gaos_curve_and_its_peak() -> None:
    fit = GaoFit(0.5, 0.2)
    assert (fit.at(0.0), fit.at(1.0)) == (0.0, 0.5)
    peak = math.exp(0.5 / 0.2 - 1)
    assert fit.at(peak) > max(fit.at(peak - 0.1), fit.at(peak + 0.1))


def test_a_score_in_other_units_has_a_scale_of_its_own(tmp_path: Path) -> None:
    proxy, near, far = (Track("x", "x", {0.0: 0.0, 1.0: end}) for end in (1.0, 3.0, -90.0))
    assert [track.factor for track in scaled([proxy, near, far])] == [1.0, 1.0, 0.01]
    assert scaled([proxy, far])[1].key == "x, \u00d7\u202f0.01"
    run = preference_run(tmp_path)
    changed(run, *RLHF, curves=guard_curves(STOPPED, has_gold=True, unit=50.0))
    own = guard_in(collect(run)).own
    assert dict(own.keys)["true"] == "true score, by taste, \u00d7\u202f0.01"
    assert "+52.5 since the start" in " ".join(own.told)


def test_numbers_beside_with_the_control(report: RunReport) -> None:
    found = guard_in(report)
    assert [picture.metric for picture in found.small] == [
        "kl", "degenerate", "distinct_2", "compression", "tokens", "unlikely", "disagreement"
    ]  # fmt: skip
    assert found.controls == (("after", "rlhf"), ("other-0", "control-off"))
    degenerate = found.small[1]
    assert plain(degenerate.told) == "0 % \u2192 9.6 %"
    assert len(heights(degenerate.chart, "other-0")) == ALL_STEPS // EVERY + 1
    assert "1.00" not in re.findall(r">([\d.]+)</text>", degenerate.chart)


def test_a_single_member_has_nobody_to_disagree_with(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    lines = guard_curves(STOPPED, has_gold=True)
    alone = [
        line.model_copy(update={"points": [(x, 0.0) for x, _ in line.points]}) if "disagree" in line.name else line
        for line in lines
    ]
    changed(run, *RLHF, curves=alone)
    assert "disagreement" not in [picture.metric for picture in guard_in(collect(run)).small]


def test_every_evaluation_is_in_a_table(report: RunReport, page: Page) -> None:
    found = guard_in(report)
    assert found.head == (
        "step", "KL", "reward model", "gold", "true", "degenerate", "distinct pairs", "compression", "tokens",
        "unlikely", "disagreement",
    )  # fmt: skip
    assert len(found.rows) == STOPPED // EVERY + 1
    kept = [plain(cell) for cell in found.rows[KEPT // EVERY]]
    assert kept[:6] == ["40", "8.19", "1.18", "1.13", "2.35", "0 %"]
    assert "9 evaluations" in page.text


def test_a_twin_of_another_model_is_not_beside(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    made = run.stage(*OFF_STAGE).manifest()
    assert made is not None
    assert made.parent is not None
    changed(run, *OFF_STAGE, parent=made.parent.model_copy(update={"stage": "base"}))
    found = guard_in(collect(run))
    assert (found.twins, found.controls) == ((), ())


def test_a_guard_by_a_function_and_odd_settings(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    told = settings("rlhf")
    for guard, name in (({"gold": None, "labeller": {"path": "a.b:best"}}, "best"), ("gold", "gold"), ([], "nobody")):
        changed(run, *RLHF, settings={**told, "guard": guard})
        assert dict(guard_in(collect(run)).own.keys)["gold"] == f"gold, by {name}"
    changed(run, *RLHF, settings={})
    assert guard_in(collect(run)).own.title == "Stopped at step 64; step 40 was kept"


def test_pictures_bear_odd_numbers() -> None:
    one = Track("gold", "gold", {0.0: 1.0})
    flat = Track("proxy", "proxy", {0.0: 1.0, 8.0: 1.0})
    for chart in (
        distance_chart("one", [one], {0.0: 0.0}, None, None),
        distance_chart("none", [], {}, None, None),
        distance_chart("flat", scaled([flat]), {0.0: 0.0, 8.0: 2.0}, GaoFit(0.0, 0.0), 8.0),
        gain_chart("flat", [flat], [(8.0, "kept"), (99.0, "far away")]),
        gain_chart("none", [], []),
    ):
        assert not re.search(r"\bnan\b|\binf\b", chart)
        assert "far away" not in chart


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    run = running(tmp_path)
    path = run.stage(*RLHF).metrics
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r'"guard/gold": [-\d.e]+', '"guard/gold": NaN', text, count=1), encoding="utf-8")
    own = guard_in(collect(run)).own
    assert len(heights(own.pictures[1][2], "gold")) == 3
    page_of(run)


# --- other forms ---------------------------------------------------------------------------------------------------


def test_markdown_tells_the_same(run: RunDir) -> None:
    build_report(run)
    text = run.report.with_suffix(".md").read_text(encoding="utf-8")
    for part in (
        "**Stopped at step 64; step 40 was kept**",
        "**Control control-off: The guard was off: nothing watched",
        "- Gold has fallen by 0.27 since step 40 while the reward model's score rose: it is being gamed.",
        "| step | KL | reward model | gold | true | degenerate |",
        "| 40 | 8.19 | 1.18 | 1.13 | 2.35 |",
        f"- Warning: {FELL}",
    ):
        assert part in text, part
