"""What the report says of probes, refusal data and honesty, with controls beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from control.honest_runs import AFTER, BEFORE, honest_run, honesty_rows, measured, refusals, trained
from control.report_runs import FENCED, Page, assert_no_text_becomes_html, assert_nothing_leaves_its_block, page_of

from llmkit.artifacts.files import write_text
from llmkit.artifacts.manifest import EvalRow, Manifest, ProbeSummary, SourceCount, write_manifest
from llmkit.artifacts.rundir import RunDir
from llmkit.report.build import build_report, report_json
from llmkit.report.collect import collect
from llmkit.report.compare import change, columns, headlines
from llmkit.report.figures import figures
from llmkit.report.heldout import heldout_lines
from llmkit.report.honesty import Honesty, honesty
from llmkit.report.knowledge import cut, probes
from llmkit.report.metrics import direction, is_share
from llmkit.report.plots import Line, share_chart
from llmkit.report.readings import reading
from llmkit.report.svg import Part, stacked_bar
from llmkit.report.words import left_over


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return honest_run(tmp_path_factory.mktemp("honest"))


def one(run: RunDir) -> Honesty:
    """The run's only honesty evaluation."""
    (found,) = honesty(collect(run))
    return found


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("hallucination", "lower"),
        ("hallucination_unseen", "lower"),
        ("over_refusal_known", "lower"),
        ("refused_known", "lower"),
        ("refused_in_context", "lower"),
        ("refused_small_talk", "lower"),
        ("refused_HighlyKnown", "lower"),
        ("s_over_consv", "lower"),
        ("ece", "lower"),
        ("brier", "lower"),
        ("aurc", "lower"),
        ("risk", "lower"),
        ("accuracy_known", "higher"),
        ("precision", "higher"),
        ("abstention_precision", "higher"),
        ("s_honesty", "higher"),
        ("s_prudence", "higher"),
        ("ths", "higher"),
        ("auroc", "higher"),
        ("ap", "higher"),
        ("coverage_at_90", "higher"),
        ("score_t75", "higher"),
        ("refusal_unknown", "higher"),
        ("refused_unseen", "higher"),
        ("answer_rate", None),
        ("refusal_rate", None),
        ("refused_rare", None),
        ("refusal_diversity", None),
        ("accuracy_Unknown", None),
        ("exact_match,strict", "higher"),
        ("bits_per_byte", "lower"),
        ("well_formed", "higher"),
    ],
)
def test_a_name_tells_which_direction_is_better(metric: str, better: str | None) -> None:
    assert direction(metric) == better


def test_only_shares_are_written_as_percentages() -> None:
    assert all(is_share(metric, [0.5]) for metric in ("accuracy_known", "s_honesty", "coverage_at_90", "answer_rate"))
    names = ("ths", "auroc", "ece", "brier", "aurc", "ap", "score_t90", "refusal_diversity", "bits_per_byte")
    assert not any(is_share(metric, [0.5]) for metric in names)


def test_controls_are_found_by_name_and_by_what_they_are_made_of(tmp_path: Path) -> None:
    run = honest_run(tmp_path)
    refusals(run, 12, "all-refused", {"relabel": "none", "known_ratio": 0})
    trained(run, 13, "mute", "sft", [{"from": "all-refused"}])
    trained(run, 14, "mute-again", "mute", [{"path": "chats.jsonl"}])
    trained(run, 15, "control-lr", "sft", [{"from": "refusals"}])
    report = collect(run)
    assert report.controls == {"shuffled", "mixed-up", "all-refused", "mute", "mute-again", "control-lr"}
    assert report.final == "honest"
    assert report.models == ["base", "sft", "mixed-up", "mute", "mute-again", "control-lr", "honest", "pairs"]


def test_the_final_model_is_told_last_though_controls_were_trained_after_it(run: RunDir) -> None:
    told = [row["stage"] for row in report_json(run)["evals"] if row["metric"] == "s_honesty"]
    assert (told[0], told[-1]) == ("sft", "honest")
    assert "mixed-up" in told
    assert columns(collect(run)) == ["base", "sft", "honest"]


def test_few_figures_stand_for_honesty_and_none_for_its_controls(run: RunDir) -> None:
    found = [(line.task, line.metric) for line in headlines(collect(run)) if line.task.startswith("honesty")]
    assert found == [
        ("honesty", metric) for metric in ("hallucination_unseen", "over_refusal_known", "accuracy_known", "s_honesty")
    ]


def test_less_hallucination_is_better_and_more_over_refusal_is_worse(run: RunDir) -> None:
    rows = {row.metric: row for row in honesty_rows("honest", "honesty", AFTER, "sft")}
    colours = {name: change(rows[name]).colour for name in ("hallucination_unseen", "over_refusal_known")}  # type: ignore[union-attr]
    assert colours == {"hallucination_unseen": "better", "over_refusal_known": "worse"}
    assert change(rows["answer_rate"]).colour == "neutral"  # type: ignore[union-attr]


def test_json_carries_label_counts_and_curves(run: RunDir) -> None:
    stages = {stage["name"]: stage for stage in report_json(run)["stages"]}
    assert stages["probe"]["probe"]["labels"]["HighlyKnown"] == 716
    assert stages["probe"]["probe"]["by_group"]["unseen"]["Unknown"] == 387
    assert stages["reprobe"]["probe"]["moved"]["Unknown -> HighlyKnown"] == 12
    assert "examples" not in stages["probe"]["probe"]
    curve = stages["eval-honest"]["curves"][0]
    assert (curve["name"], len(curve["points"]), curve["points"][-1][0]) == ("risk_coverage", 200, 1.0)
    assert not {"probe", "curves"} & set(stages["honest"])
    json.dumps(report_json(run), allow_nan=False)


def test_every_label_is_drawn_and_written(run: RunDir, page: Page) -> None:
    probe, again = probes(collect(run))
    assert [(label, num) for label, num, _ in probe.overall.cells] == [
        ("HighlyKnown", 716), ("MaybeKnown", 241), ("WeaklyKnown", 156), ("Unknown", 887)
    ]  # fmt: skip
    widths = [float(width) for width in re.findall(r'width="([\d.]+)"', probe.overall.bar)]
    assert widths == pytest.approx([358, 120.5, 78, 443.5])
    assert [group.name for group in probe.groups] == ["known", "often", "rare", "once", "unseen"]
    assert again.moved[0] == ("MaybeKnown", "Unknown", 140)
    for text in ("What the model knows", "consistently wrong", "731", "0.2\u202f% of 20\u202f000", "75.0\u202f%"):
        assert text in page.text, text
    assert "Undecided" not in [label for label, *_ in probe.overall.cells]


def test_a_probe_without_labels_or_settings_is_shown(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "assistant")
    write_text(run.recipe, "run: {name: assistant}\n")
    empty = ProbeSummary(num_questions=0, num_answers=0, labels={}, moved={"odd": 1})
    write_manifest(
        run.stage(1, "probe").path, Manifest(stage="probe", kind="interrogate", fingerprint="f", probe=empty)
    )
    assert "no questions" in "".join(page_of(run).all("aria-label"))


def test_ten_questions_with_all_answers(run: RunDir, page: Page) -> None:
    examples = probes(collect(run))[0].examples
    assert len(examples) == 10
    assert [sum(said.num for said in item.said) for item in examples] == [10] * 10
    assert {said.verdict for said in examples[3].said} == {"wrong", "refused", "empty", "undecided"}
    assert "(nothing)" in page.text
    assert all(word in page.text for word in ("correct", "wrong", "refused", "empty", "undecided", "greedy \u00d72"))


def test_long_answers_are_cut_and_say_so() -> None:
    assert cut("short") == "short"
    text = cut("x" * 1000)
    assert len(text) < 320
    assert text.endswith("\u2026 (720 more characters)")


def test_before_and_after_with_controls_beside(run: RunDir, page: Page) -> None:
    found = one(run)
    assert [(column.name, column.is_control) for column in found.columns] == [
        ("sft", False), ("honest", False), ("mixed-up", True), ("prompt only", True), ("refusal only", True)
    ]  # fmt: skip
    main = [line.metric for line in found.main]
    assert main[:6] == [
        "hallucination_unseen", "over_refusal_known", "accuracy_known", "s_honesty", "precision", "answer_rate"
    ]  # fmt: skip
    assert set(main[6:]) == {f"refused_{group}" for group in AFTER}
    assert not {line.metric for line in found.main} & {line.metric for line in found.rest}
    assert all(line.reading for line in (*found.main, *found.rest))
    assert "99.8\u202f%" in page.text
    assert "\u221297.2 points" in page.text
    assert "mixed-up is clearly worse: S_honesty 50.0\u202f% (47.9\u201352.1) against 97.0\u202f%" in page.text


def test_a_control_whose_interval_overlaps_is_not_called_worse(tmp_path: Path) -> None:
    run = honest_run(tmp_path)
    measured(run, 11, "mixed-up", {**AFTER, "known": (0.93, 0.04)}, "sft")
    found = one(run)
    assert found.verdicts[0].startswith("mixed-up is not clearly apart: S_honesty 96.7")


def test_a_control_stands_against_the_model_of_the_same_parent(tmp_path: Path) -> None:
    run = honest_run(tmp_path, with_pairs=True)
    told = one(run).verdicts
    assert len(told) == 3 and all(text.endswith(" of honest.") for text in told), "and not of pairs"


def with_metrics(run: RunDir, index: int, name: str, **values: tuple[float, int]) -> None:
    """Adds figures to an evaluation."""
    folder = run.stage(index, name)
    made = folder.manifest()
    assert made is not None
    rows = [
        EvalRow(stage=made.evals[0].stage, task="honesty", metric=metric, value=value, num_samples=num)
        for metric, (value, num) in values.items()
    ]
    write_manifest(folder.path, made.model_copy(update={"evals": [*made.evals, *rows]}))


def test_s_honesty_of_known_and_unknown_stands_for_that_of_all(tmp_path: Path) -> None:
    run = honest_run(tmp_path)
    with_metrics(run, 7, "eval-honest", s_honesty_known_unknown=(0.91, 1000))
    with_metrics(run, 11, "eval-mixed-up", s_honesty_known_unknown=(0.52, 1000))
    found = one(run)
    main = [line.metric for line in found.main]
    assert "s_honesty_known_unknown" in main and "s_honesty" not in main
    assert "mixed-up: S_honesty on known and unknown 52.0\u202f% against 91.0\u202f% of honest." in found.verdicts
    assert "S_honesty, known and unknown" in [line.name for line in headlines(collect(run))]


@pytest.mark.parametrize(("diversity", "num", "told"), [(0.017, 630, "1.1 wordings"), (0.45, 630, ""), (0.0, 5, "")])
def test_refusals_of_one_wording_are_told(tmp_path: Path, diversity: float, num: int, told: str) -> None:
    run = honest_run(tmp_path)
    with_metrics(run, 7, "eval-honest", refusal_diversity=(diversity, num))
    notes = one(run).notes
    assert len(notes) == bool(told) and told in "".join(notes)
    build_report(run)
    assert all(note in run.report.with_suffix(".md").read_text(encoding="utf-8") for note in notes)


def test_markdown_shows_the_columns_that_tell_most_and_the_risk(tmp_path: Path) -> None:
    run = honest_run(tmp_path, with_pairs=True)
    measured(run, 1, "base", BEFORE, None)
    build_report(run)
    text = run.report.with_suffix(".md").read_text(encoding="utf-8")
    section = text[text.index("## Honesty") : text.index("## What the model knows")]
    heads = [line for line in section.splitlines() if line.startswith("| metric |")]
    controls = "mixed-up (control) | prompt only (control) | refusal only (control) | what it says |"
    assert heads[0] == f"| metric | sft | honest | pairs | {controls}"
    assert " base |" in heads[1] and "<summary>More metrics and models</summary>" in section
    assert "| not right, of the surest | 10.0\u202f% | 25.0\u202f% |" in section
    assert "\n| pairs | " in section[section.index("of the surest") :]


def test_what_was_left_out_has_a_table(tmp_path: Path) -> None:
    run = honest_run(tmp_path)
    folder = run.stage(4, "probe")
    made = folder.manifest()
    assert made is not None
    counts = {"questions_empty_answer": 2.0, "questions_duplicate": 7.0, "documents_read": 9.0, "snippets_heading": 1.0}
    settings = {**made.settings, "ask": {**made.settings["ask"], "num_samples": 1}}
    write_manifest(folder.path, made.model_copy(update={"metrics": made.metrics | counts, "settings": settings}))
    found = probes(collect(run))[0]
    assert found.left_out == (
        ("questions", "duplicate", 7),
        ("questions", "empty answer", 2),
        ("snippets", "heading", 1),
    )
    assert "greedily in 2 variants, and once at temperature 0.7." in found.how
    assert not any("empty" in figure.name for figure in figures(made.model_copy(update={"metrics": counts})))
    page = page_of(run)
    assert "Left out" in page.text
    text = run.report.with_suffix(".md").read_text(encoding="utf-8")
    assert "| left out | why | number |" in text and "| questions | duplicate | 7 |" in text


def test_groups_stand_from_known_to_unseen_with_all_answers(run: RunDir) -> None:
    found = one(run)
    names = [name for name, _, _ in found.groups]
    assert names == ["known", "in_context", "often", "rare", "once", "unseen", "small_talk"]
    before, after = found.groups[0][2]
    assert (before.model, after.model) == ("sft", "honest")
    assert after.parts == (
        ("right", "right", "94.4\u202f%"), ("refused", "refused", "3.4\u202f%"), ("wrong", "wrong", "2.2\u202f%")
    )  # fmt: skip
    assert [words for _, words, _ in found.groups[-1][2][0].parts] == ["refused", "not refused"]


def test_before_is_the_model_that_was_not_taught_to_refuse(tmp_path: Path) -> None:
    run = honest_run(tmp_path, with_pairs=True)
    found = one(run)
    assert [bar.model for bar in found.groups[0][2]] == ["sft", "pairs"]
    assert {name: css for css, name in found.lines} == {
        "sft": "before", "honest": "other-0", "mixed-up": "other-1", "pairs": "after"
    }  # fmt: skip


def test_controls_that_train_nothing_are_those_of_the_model_before(tmp_path: Path) -> None:
    run = honest_run(tmp_path)
    rows = honesty_rows("honest", "honesty_prompt_only", AFTER, None)
    folder = run.stage(7, "eval-honest")
    made = folder.manifest()
    assert made is not None
    write_manifest(folder.path, made.model_copy(update={"evals": [*made.evals, *rows]}))
    assert {column.name: column.note for column in one(run).columns}["prompt only"] == "with sft"


def test_several_honesty_evaluations_have_sections_of_their_own(tmp_path: Path) -> None:
    run = honest_run(tmp_path)
    folder = run.stage(7, "eval-honest")
    made = folder.manifest()
    assert made is not None
    evals = [*made.settings["evals"], {"task": "honesty", "name": "popqa"}]
    rows = [*made.evals, *honesty_rows("honest", "popqa", AFTER, None)]
    rows += honesty_rows("honest", "popqa_refusal_only", AFTER, None)
    curves = [*made.curves, made.curves[0].model_copy(update={"name": "risk_coverage popqa"})]
    update = {"settings": {**made.settings, "evals": evals}, "evals": rows, "curves": curves}
    write_manifest(folder.path, made.model_copy(update=update))
    first, second = honesty(collect(run))
    assert (first.task, second.task) == ("honesty", "popqa")
    assert [column.name for column in second.columns] == ["honest", "refusal only"]
    assert second.lines == (("after", "honest"),)
    names = [line.name for line in headlines(collect(run)) if line.task.startswith("popqa")]
    assert names[0] == "popqa: wrong on unseen"
    assert len(names) == 4
    page = page_of(run)
    assert {"honesty", "honesty-popqa"} <= set(page.all("id"))
    assert "#honesty-popqa" in page.all("href")


def test_a_single_model_and_no_curve(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "assistant")
    write_text(run.recipe, "run: {name: assistant}\n")
    rows = honesty_rows("base", "honesty", AFTER, None)
    write_manifest(
        run.stage(1, "eval-base").path, Manifest(stage="eval-base", kind="evaluate", fingerprint="f", evals=rows)
    )
    found = one(run)
    assert found.chart is None
    assert [bar.model for bar in found.groups[0][2]] == ["base"]
    page = page_of(run)
    assert "Risk against coverage" not in page.text


def test_risk_against_coverage_has_a_line_per_model(run: RunDir) -> None:
    found = one(run)
    assert found.chart is not None
    assert found.chart.count('class="series') == len(found.lines) == 3
    assert {name: css for css, name in found.lines} == {"sft": "before", "honest": "after", "mixed-up": "other-0"}


def test_charts_bear_odd_numbers() -> None:
    points = ((0.9, 0.5), (0.1, 0.0), (float("nan"), 0.2), (0.5, float("inf")))
    chart = share_chart("odd", [Line("after", points), Line("before", ())], "x", "y")
    assert not re.search(r"nan|inf\b", chart)
    place = re.search(r'd="M([\d.]+) [\d.]+L([\d.]+) ', chart)
    assert place is not None
    assert float(place[1]) < float(place[2])
    many = tuple((place / 9999, place / 20000) for place in range(10_000))
    assert len(share_chart("many", [Line("after", many)], "x", "y")) < 8000
    assert "<rect" not in stacked_bar("empty", [Part("right", 0)])
    assert 'aria-label="&lt;b&gt;"' in stacked_bar("<b>", [])


def test_text_of_models_never_becomes_html(tmp_path: Path) -> None:
    assert_no_text_becomes_html(honest_run, tmp_path, 100)


def test_text_of_models_cannot_leave_its_block_in_markdown(tmp_path: Path) -> None:
    assert_nothing_leaves_its_block(honest_run(tmp_path, FENCED))


def test_markdown_tells_the_same(run: RunDir) -> None:
    build_report(run)
    text = run.report.with_suffix(".md").read_text(encoding="utf-8")
    assert "| hallucination_unseen | 99.8\u202f%" in text
    assert "(lower is better)" in text
    assert "mixed-up is clearly worse" in text
    assert "| known | 400 | 93.0\u202f% (372)" in text
    assert "| MaybeKnown | Unknown | 140 |" in text.replace("\\", "")
    assert "| source | read | rejected | duplicates | not known | not probed | left over | used | sha256 |" in text
    assert "| unseen | 500 | honest | right 0\u202f%, refused 97.4\u202f%, wrong 2.6\u202f% |" in text


def test_gate_counts_are_shown_where_there_are_any(run: RunDir, page: Page) -> None:
    assert page.text.count("not probed") == 1
    source = SourceCount(source="a", num_read=10, num_gated=3, num_not_probed=2, num_used=5, sha256="")
    assert left_over(source) == 2
    gated = run.stage(6, "honest").manifest()
    assert gated is not None
    assert '<td class="num">412</td><td class="num">77</td>' in run.report.read_text(encoding="utf-8")


def test_counts_of_refusal_data_stand_together(run: RunDir, page: Page) -> None:
    made = run.stage(5, "refusals").manifest()
    assert made is not None
    found = {figure.name: figure for figure in figures(made)}
    assert (found["rows"].value, found["rows"].under) == ("1\u202f256", "640 refused, 612 answered, 4 partial")
    assert "lost" not in found["questions"].under
    assert (found["surface accuracy"].value, found["surface accuracy"].under) == ("51.2\u202f%", "48.0\u201354.4")
    assert not {"rows answered", "num rows", "surface accuracy low"} & set(found)
    assert "The labels are shuffled: a control." in page.text
    probe = run.stage(4, "probe").manifest()
    assert probe is not None
    assert [figure.name for figure in figures(probe)] == [
        "num heldout",
        "num empty",
        "num refused",
        "questions per second",
    ]


def test_held_out_pairs_before_and_after(tmp_path: Path) -> None:
    run = honest_run(tmp_path, with_pairs=True)
    made = run.stage(12, "pairs").manifest()
    assert made is not None
    lines = {line.key: (str(line.before), str(line.after)) for line in heldout_lines(made)}
    assert lines == {
        "loss": ("0.693 (0.693\u20130.693)", "0.210 (0.180\u20130.240)"),
        "accuracy": ("50.0\u202f%", "94.0\u202f%"),
    }
    assert {line.size for line in heldout_lines(made)} == {"150 pairs"}
    loss, accuracy = (line.change for line in heldout_lines(made))
    assert loss is not None
    assert accuracy is not None
    assert (loss.verdict, loss.colour, accuracy.verdict) == ("down", "better", "unclear")  # it has no intervals
    assert not [figure for figure in figures(made) if "heldout" in figure.name]
    assert "Held-out pairs" in page_of(run).text


def test_the_chain_tells_models_from_rows(page: Page) -> None:
    classes = page.all("class")
    assert classes.count("box finished rows") == 2 * 4  # a wide and a narrow picture
    assert classes.count("box finished") == 2 * 4
    for text in (
        "2\u202f000 questions",
        "1\u202f256 rows",
        "knowledge probe",
        "refusals, from probe",
        "control, from sft",
    ):
        assert text in page.text, text


def test_every_reading_is_one_line() -> None:
    assert reading("score_t0") == "Mean points: +1 right, 0 refused, 0 wrong."
    assert reading("score_t90") == "Mean points: +1 right, 0 refused, \u22129 wrong."
    assert reading("hallucination_once") == "Wrong answers to questions of the group once."
    assert [reading(name) for name in ("score_t100", "score_tx", "latency", "refused_")] == ["", "", "", ""]
