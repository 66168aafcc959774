"""What the report says of rollouts, rankings, reward models and evaluations of preferences."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from control.practice_runs import changed, heights, stage_of
from control.preference_runs import EVERY, STOPPED, preference_rows, preference_run, preferred
from control.report_runs import (
    FENCED,
    Page,
    assert_no_text_becomes_html,
    assert_nothing_leaves_its_block,
    assert_whole,
    page_of,
)
from rich.console import Console

from llmkit.artifacts.manifest import Sample
from llmkit.artifacts.rundir import RunDir
from llmkit.recipe.preference import best_of_n_kl
from llmkit.report.build import build_report, report_json
from llmkit.report.chain import nodes
from llmkit.report.collect import collect
from llmkit.report.compare import headlines
from llmkit.report.figures import figures
from llmkit.report.metrics import direction, is_share
from llmkit.report.numbers import interval
from llmkit.report.preference import Preference, preferences
from llmkit.report.readings_preference import preference_words, ranking_words
from llmkit.report.rewarding import Rewarding, rewarding
from llmkit.report.run import RunReport
from llmkit.report.seeds import over_runs
from llmkit.report.terminal import print_summary
from llmkit.report.words import did


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return preference_run(tmp_path_factory.mktemp("preference"))


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u2212", "-").replace("\u2013", "-")


def figures_in(report: RunReport, name: str) -> dict[str, tuple[str, str]]:
    made = stage_of(report, name).manifest
    assert made is not None
    return {figure.name: (plain(figure.value), plain(figure.under)) for figure in figures(made)}


def reward_in(report: RunReport, name: str = "rm") -> Rewarding:
    found = rewarding(report, stage_of(report, name))
    assert found is not None
    return found


def one(run: RunDir) -> Preference:
    (found,) = preferences(collect(run))
    return found


# --- rollouts and rankings -----------------------------------------------------------------------------------------


def test_what_was_rolled_out(report: RunReport) -> None:
    assert plain(did(stage_of(report, "rollouts"))) == (
        "Had sft answer every prompt 5 times, at temperature 1, in different words. 1 000 prompts gave 4 975 answers "
        "to be ranked; 5 prompts with a single answer left out."
    )
    found = figures_in(report, "rollouts")
    assert found["answers"] == ("4 975", "5 to a prompt, 16 cut off")
    assert found["left out"] == ("5", "prompts with a single answer")
    assert not {"completions", "cut off", "without choice"} & set(found)


def test_answers_stand_below_their_prompt_once(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    told = [Sample(prompt="A joke about otters?", completion=text, label="sft") for text in ("One.", "Two.", "Three.")]
    changed(run, 3, "rollouts", samples=told)
    text = page_of(run).text
    assert text.count("A joke about otters?") == 1
    assert text.index("A joke about otters?") < text.index("One.") < text.index("Three.")


def test_several_models_roll_out(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    made = run.stage(3, "rollouts").manifest()
    assert made is not None
    changed(run, 3, "rollouts", settings={**made.settings, "models": ["one", "two"]}, metrics={})
    assert did(stage_of(collect(run), "rollouts")) == (
        "Had sft, one and two answer every prompt 5 times, at temperature 1, in different words."
    )


def test_who_ranked_and_how_far_raters_agree(report: RunReport) -> None:
    assert plain(did(stage_of(report, "ranks"))) == (
        "The function taste, made to mistake 25.0 % of the pairs, put the answers of rollouts in order, best to worst. "
        "995 decisions on 995 prompts gave 9 900 pairs and 50 ties. 75.4 % of the pairs are in the labeller's true "
        "order."
    )
    assert plain(did(stage_of(report, "people"))) == (
        "People put the answers of rollouts in order, best to worst. 410 decisions on 200 prompts gave 3 900 pairs and "
        "120 ties."
    )
    assert figures_in(report, "people") == {
        "decisions": ("410", "by 2 raters, 6 skipped, 2 flagged"),
        "pairs in order": ("3 900", "120 ties beside them"),
        "time to a prompt": ("22 s", ""),
        "raters agree": ("0.440", "Kendall's tau of two raters"),
        "a rater agrees with himself": ("0.490", "Kendall's tau of two looks at one prompt"),
        "a perfect model can reach": ("85.0 %", "of the pairs, by how far raters agree with themselves"),
    }
    assert figures_in(report, "ranks")["pairs in true order"][0] == "75.4 %"


@pytest.mark.parametrize(
    ("told", "begins"),
    [
        ({"by": "judge", "judge": {"name_or_path": "some/model"}}, "A judge (some/model), asked twice in two orders,"),
        ({"by": "judge", "judge": {}, "from": "sft"}, "A judge (the model of sft), asked twice"),
        ({"by": "file", "path": "r.jsonl"}, "Whoever wrote the file of rankings put"),
        ({"by": "labeller", "labeller": {"path": "a:b", "noise": 0.0}}, "The function b put"),
        ({}, "Somebody put the answers of rollouts in order"),
    ],
)
def test_every_kind_of_rater(tmp_path: Path, told: dict[str, object], begins: str) -> None:
    run = preference_run(tmp_path)
    changed(run, 4, "ranks", settings=told, metrics={})
    assert did(stage_of(collect(run), "ranks")).startswith(begins)


def test_the_chain_shows_rows_and_where_they_went(report: RunReport) -> None:
    found = {node.name: node for node in nodes(report)}
    assert (found["rollouts"].tokens, found["rollouts"].makes_model) == ("4\u202f975 answers", False)
    assert (found["ranks"].tokens, found["ranks"].follows) == ("9\u202f900 pairs", True)
    assert (found["people"].kind, found["people"].follows) == ("rank, from rollouts", False)
    assert (found["rm"].kind, found["rm"].task, found["rm"].change) == (
        "reward, from ranks", "pairs in order", "67.5\u202f%"
    )  # fmt: skip
    assert (found["rlhf"].kind, found["rlhf"].follows) == ("reward-model practice", True)
    assert (found["rlhf"].task, found["rlhf"].change, found["rlhf"].colour) == ("wins by gold", "86.0\u202f%", "better")
    assert (found["control-off"].kind, found["control-off"].change) == ("control, from sft", "")


# --- reward models -------------------------------------------------------------------------------------------------


def test_what_a_reward_model_comes_to_in_words(report: RunReport) -> None:
    assert plain(" ".join(reward_in(report).told)) == (
        "Puts 67.5 % (64.5-70.5) of the pairs of 166 held-out prompts in the raters' order. About 75.4 % can be "
        "reached: so many of the ranked pairs are in the labeller's true order. Taking the longer answer alone would "
        "get 59.5 % right; it scores the longer one higher in 71.1 %: it likes length more than the raters do. 98.5 % "
        "of the degenerate answers score below all others. Pair accuracy by prompts ranked: 63.9 % with 104, 67.5 % "
        "with 832."
    )
    assert plain(did(stage_of(report, "rm"))) == (
        "Learned which of several answers to a prompt is better, from all pairs of a prompt's answers at once. Starts "
        "from sft; all weights trained on the rankings of ranks; 2 members with seeds of their own; ran on cpu. 10.0 % "
        "of the prompts got a degenerate answer that ranks last."
    )


def test_the_ceiling_from_a_rater_and_himself(report: RunReport) -> None:
    assert plain(reward_in(report, "gold").told[1]) == (
        "About 85.0 % can be reached: reckoned from how far raters agree with themselves."
    )


def test_no_ceiling_where_nobody_knows_one(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    (rm,) = [stage for stage in run.stages() if stage.name == "rm"]
    made = rm.manifest()
    assert made is not None
    metrics = {key: value for key, value in made.metrics.items() if key != "heldout/ceiling"}
    changed(run, int(rm.path.name[:2]), "rm", metrics=metrics)
    found = reward_in(collect(run))
    assert not [text for text in found.told if "can be reached" in text]
    assert "other-2" not in (found.chart or "")


def test_measures_of_a_reward_model(report: RunReport, page: Page) -> None:
    found = reward_in(report)
    assert [column.name for column in found.columns] == ["held out", "a/b"]
    assert [line.metric for line in found.main] == [
        "pair accuracy", "can be reached", "top 1", "Kendall's tau", "longer wins", "longer scores",
        "correlation with length", "calibration error", "loss", "members disagree", "degenerate come last",
    ]  # fmt: skip
    assert [line.metric for line in found.rest] == ["pair accuracy of member 0", "pair accuracy of member 1"]
    shares = ["pair accuracy", "can be reached", "top 1", "longer wins", "longer scores", "degenerate come last"]
    assert [line.metric for line in found.main if line.is_share] == shares
    assert [line.better for line in found.main if line.metric in ("loss", "pair accuracy", "longer wins")] == [
        "higher is better", "", "lower is better"
    ]  # fmt: skip
    assert found.main[0].num_samples == 90  # of the set named last
    assert all(line.reading for line in (*found.main, *found.rest))
    assert "num pairs" not in page.text


def test_accuracy_by_places_apart(report: RunReport, page: Page) -> None:
    (name, gaps), (other, _) = reward_in(report).gaps
    assert (name, other) == ("held out", "a/b")
    assert [(gap.places, plain(gap.share), plain(gap.bounds)) for gap in gaps][::3] == [
        ("1 place apart", "58.6 %", "55.6-61.6"), ("4 places apart", "81.9 %", "78.9-84.9")
    ]  # fmt: skip
    assert "1 place apart: 58.6\u202f% right" in page.all("aria-label")


def test_what_more_rankings_bring_is_drawn_below_what_can_be_reached(report: RunReport) -> None:
    found = reward_in(report)
    assert found.chart is not None
    accuracy, reach = heights(found.chart, "after"), heights(found.chart, "other-2")
    assert len(accuracy) == 4
    assert max(reach) < min(accuracy)  # y points down
    assert [plain(text) for _, text in found.points] == ["63.9 %", "66.3 %", "66.5 %", "67.5 %"]
    assert "can be reached" in found.chart
    assert reward_in(report, "gold").chart is None


def test_a_reward_model_without_held_out_prompts(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    changed(run, 6, "rm", metrics={"steps": 4.0})
    assert rewarding(collect(run), stage_of(collect(run), "rm")) is None
    assert {node.name: node.change for node in nodes(collect(run))}["rm"] == ""
    page_of(run)


def test_longer_answers_that_raters_like_as_much(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    made = run.stage(6, "rm").manifest()
    assert made is not None
    same = {key.replace("longer_wins", "longer_scores"): made.metrics[key] for key in made.metrics if "_wins" in key}
    changed(run, 6, "rm", metrics={**made.metrics, **same})
    assert "it likes length" not in " ".join(reward_in(collect(run)).told)


# --- evaluations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "better", "share"),
    [
        ("gold", "higher", False),
        ("gold_win_rate", "higher", True),
        ("gold_best_of_4", "higher", False),
        ("degenerate_rate", "lower", True),
        ("reward_pair_accuracy", "higher", True),
        ("writes_better", None, True),
        ("discriminator_gap", None, True),
        ("num_tokens", None, False),
        ("tau", "higher", False),
        ("top1", "higher", True),
        ("calibration_error", "lower", False),
        ("degenerate_last", "higher", True),
        ("longer_wins", None, True),
        ("goldfish", None, True),
    ],
)
def test_directions_and_shares_of_preferences(metric: str, better: str | None, share: bool) -> None:
    assert direction(metric) == better
    assert is_share(metric, [0.5]) is share


def test_a_difference_of_shares_may_be_below_zero() -> None:
    assert is_share("discriminator_gap", [-0.2])
    assert not is_share("accuracy", [-0.2])


def test_an_interval_below_zero_has_no_dash_beside_a_sign() -> None:
    assert interval(-0.76, -0.48, False) == "\u22120.760 to \u22120.480"
    assert interval(-0.1, 0.18, True) == "\u221210.0 to 18.0"
    assert interval(0.1, 0.18, True) == "10.0\u201318.0"


def test_models_in_the_order_of_the_chain(run: RunDir, page: Page) -> None:
    found = one(run)
    assert [(column.name, column.is_control) for column in found.columns] == [
        ("sft", False), ("rlhf", False), ("control-off", True)
    ]  # fmt: skip
    assert [line.metric for line in found.main] == [
        "gold", "wins by gold", "degenerate answers", "cut off", "tokens"
    ]  # fmt: skip
    assert [line.better for line in found.main] == [
        "higher is better", "higher is better", "lower is better", "lower is better", ""
    ]  # fmt: skip
    assert found.how == (
        "Gold: the reward model gold, that no policy is trained on. The reward "
        "model whose choice is measured: rm. Wins are against sft, answer by answer."
    )
    assert [plain(text) for text in found.verdicts] == [
        "control-off is clearly worse: gold -0.620 (-0.760 to -0.480) against 1.08 (0.940-1.22) of rlhf."
    ]
    for text in ("wins by gold", "86.0", "Can RLHF pay?", "Best of n", "First answers that are better"):
        assert text in page.text, text


def test_whether_rlhf_can_pay(run: RunDir) -> None:
    assert [plain(text) for text in one(run).gaps] == [
        "sft: the reward model picks the better of two answers in 68.3 % of the pairs, the policy itself in 52.0 %: "
        "RLHF can pay here.",
        "rlhf: the reward model picks the better of two answers in 53.0 % of the pairs, the policy itself in 52.0 %: "
        "not clearly apart, so nobody can say whether RLHF pays here.",
    ]


def test_rlhf_cannot_pay_where_the_policy_knows_as_much(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    rows = [
        row.model_copy(update={"value": -0.05, "low": -0.1, "high": 0.0}) if row.metric == "discriminator_gap" else row
        for row in preference_rows("sft", None)
    ]
    changed(run, 2, "eval-sft", evals=rows)
    assert "RLHF cannot pay here, for the policy knows as much." in one(run).gaps[0]
    assert "\u22125.0\u202f%" in page_of(run).text


def test_best_of_n_with_its_distance(run: RunDir) -> None:
    found = one(run)
    assert [(row.n, row.kl) for row in found.best] == [(1, "0"), (2, "0.193"), (4, "0.636")]
    assert best_of_n_kl(16) == pytest.approx(math.log(16) - 15 / 16)
    assert [plain(cell) for cell in found.best[1].cells[0]] == ["0.340", "0.220-0.460"]
    assert not [line for line in found.main if "best" in line.metric]


def test_headlines_are_named_in_words(run: RunDir, page: Page) -> None:
    found = headlines(collect(run))
    assert [(line.metric, line.name) for line in found] == [
        ("gold", "gold"), ("gold_win_rate", "wins by gold"), ("degenerate_rate", "degenerate answers")
    ]  # fmt: skip
    assert "wins by gold (higher is better), 128 samples" in page.text
    assert "degenerate answers (lower is better), 128 samples" in page.text


def test_several_evaluations_and_baselines_of_their_own(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    for index, model in ((9, "rlhf"), (11, "control-off")):
        made = run.stage(index, f"eval-{model}").manifest()
        assert made is not None
        told = [{**made.settings["evals"][0], "baseline": None if model == "rlhf" else "base"}]
        changed(run, index, f"eval-{model}", settings={**made.settings, "from": "sft", "evals": told})
    preferred(run, 12, "rlhf", "sft", task="jokes")
    first, second = preferences(collect(run))
    assert (first.task, second.task) == ("preference", "jokes")
    assert "Wins are against the model that each started from" in first.how
    page = page_of(run)
    assert {"preference", "preference-jokes"} <= set(page.all("id"))
    assert {"#preference", "#preference-jokes"} <= set(page.all("href"))
    assert "jokes: gold" in page.text


def test_gold_by_a_function(tmp_path: Path) -> None:
    run = preference_run(tmp_path)
    made = run.stage(11, "eval-control-off").manifest()
    assert made is not None
    told = [{**made.settings["evals"][0], "gold": None, "labeller": {"path": "a.b:taste"}, "reward_model": None}]
    changed(run, 11, "eval-control-off", settings={**made.settings, "evals": told})
    assert "Gold: the function taste. Wins are" in one(run).how


def test_words_of_unknown_metrics_are_their_names() -> None:
    assert preference_words("odd_one") == ("odd_one", "")
    assert ranking_words("odd_one") == ("odd one", "")
    assert preference_words("gold_best_of_8")[0] == "gold, best of 8"


# --- pages, other forms --------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_in_order(page: Page) -> None:
    order = ["results", "preference", "stage-rollouts", "stage-ranks", "stage-rm", "stage-rlhf", "evaluations"]
    assert_whole(page, order)
    assert "sha256" in page.text


def test_a_page_has_its_size(run: RunDir) -> None:
    assert build_report(run).stat().st_size < 400_000


def test_text_of_models_never_becomes_html(tmp_path: Path) -> None:
    assert_no_text_becomes_html(preference_run, tmp_path, 40)


def test_text_of_models_cannot_leave_its_block_in_markdown(tmp_path: Path) -> None:
    assert_nothing_leaves_its_block(preference_run(tmp_path, FENCED))


def test_markdown_tells_the_same(run: RunDir) -> None:
    build_report(run)
    text = plain(run.report.with_suffix(".md").read_text(encoding="utf-8"))
    for part in (
        "## Preference",
        "| preference | wins by gold (higher is better) |  | 86.0 % (81.0-91.0) |",
        "| metric | sft | rlhf | control-off (control) | what it says |",
        "- sft: the reward model picks the better of two answers in 68.3 %",
        "| best of n | KL | gold of sft | gold of rlhf | gold of control-off (control) |",
        "| 2 | 0.193 | 0.340 (0.220-0.460) |",
        "- control-off is clearly worse: gold -0.620",
        "Had sft answer every prompt 5 times",
        "decisions 410 (by 2 raters, 6 skipped, 2 flagged)",
        "About 75.4 % can be reached",
        "| pair accuracy | 67.5 % (64.5-70.5) | 61.2 % (58.2-64.2) | Pairs of answers that",
        "| pair accuracy of member 1 | 66.8 % |",
        "| pairs of held out | in the raters' order |",
        "| 4 places apart | 81.9 % (78.9-84.9) |",
        "| 104 | 63.9 % |",
    ):
        assert part in text, part


def test_json_holds_the_numbers_as_they_are(run: RunDir) -> None:
    told = report_json(run)
    stages = {stage["name"]: stage for stage in told["stages"]}
    assert stages["rm"]["metrics"]["heldout/accuracy_gap_4"] == 0.819
    assert stages["ranks"]["metrics"]["right_pairs"] == 0.754
    assert stages["rlhf"]["metrics"]["guard_best_step"] == 40
    assert [curve["name"] for curve in stages["rm"]["curves"]] == ["rankings"]
    assert len(next(c for c in stages["rlhf"]["curves"] if c["name"] == "guard/gold")["points"]) == STOPPED // EVERY + 1
    metrics = {row["metric"]: row["value"] for row in told["evals"] if row["stage"] == "rlhf"}
    assert (metrics["gold_win_rate"], metrics["gold_best_of_4"]) == (0.86, 1.6)
    json.dumps(told, allow_nan=False)


def test_the_terminal_names_gold_and_warns_of_the_guard(run: RunDir) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    print_summary(run, console)
    text = console.export_text()
    for part in ("wins by gold (higher is better)", "rlhf: step 64: stopped: gold has", "the guard is off: nothing"):
        assert part in text, part


def test_reward_models_and_guards_over_seeds(tmp_path: Path) -> None:
    runs = [preference_run(tmp_path / str(seed), shift=by) for seed, by in enumerate((0.0, 0.1, -0.1))]
    rows = {(row["stage"], row["task"], row["metric"]): row for row in over_runs(runs)}
    assert rows["rm", "reward", "heldout/accuracy"]["mean"] == pytest.approx(0.675)
    assert rows["ranks", "rank", "right_pairs"]["values"] == [0.754] * 3
    assert rows["rlhf", "rlhf", "guard_best_step"]["mean"] == 40
    assert rows["rlhf", "preference", "gold"]["values"] == pytest.approx([1.08, 1.18, 0.98])
    assert not [key for key in rows if key[2].endswith(("_low", "_high"))]
