"""What a report is made of: curves, judged differences, numbers, settings, the lines on a terminal."""

import math
import re
from typing import Any

from control.report_runs import curve, full_run, log, measure
from rich.console import Console

from llmkit.artifacts.manifest import EvalRow, Heldout, Manifest, SourceCount, write_manifest
from llmkit.report.build import build_report
from llmkit.report.collect import collect
from llmkit.report.compare import change, headlines, heldout_change, largest_change, num_samples, result_lines
from llmkit.report.metrics import direction, headline_metrics, is_share, short_name
from llmkit.report.numbers import axis, count, difference, duration, interval, number, percent, size
from llmkit.report.run import KINDS, StageReport
from llmkit.report.settings import data_sources, settings
from llmkit.report.svg import MAX_POINTS, line_chart, thin, ticks
from llmkit.report.terminal import print_summary
from llmkit.report.words import did, fact, left_over


def test_nan_losses_are_a_gap_and_a_warning(tmp_path):
    run = full_run(tmp_path)
    rows = curve(50)
    for row in rows[20:23]:
        row["loss"] = math.nan
    log(run.stage(2, "cpt").metrics, rows)
    text = build_report(run).read_text(encoding="utf-8")
    assert "loss was not a finite number at 3 of 50 logged steps, first at step 21." in text
    assert not re.search(r'[" ,]nan[" ,]', text, re.IGNORECASE)
    stage = collect(run).stages[1]
    chart = line_chart("loss", thin(stage.curves[0].steps, stage.curves[0].values))
    assert chart.count('class="line"') == 2
    assert "No finite value" in line_chart("loss", thin([1, 2], [math.nan, math.inf]))


def test_many_lines_are_thinned_and_keep_their_extremes(tmp_path):
    run = full_run(tmp_path)
    size_before = build_report(run).stat().st_size
    rows = curve(100_000)
    rows[54_321]["loss"] = 99.0
    log(run.stage(2, "cpt").metrics, rows)
    assert build_report(run).stat().st_size < size_before + 60_000
    points = thin([row["step"] for row in rows], [row["loss"] for row in rows])
    assert len(points) <= MAX_POINTS
    assert max(point.high for point in points) == 99.0


def test_a_resumed_step_counts_once_with_its_later_value(tmp_path):
    run = full_run(tmp_path)
    first, again = curve(10), curve(10)[5:]
    for row in again:
        row["loss"] = 7.0
    log(run.stage(2, "cpt").metrics, first + again)
    loss = collect(run).stages[1].curves[0]
    assert loss.steps == tuple(range(1, 11))
    assert loss.values[4:6] == (first[4]["loss"], 7.0)


def test_clear_means_that_the_interval_leaves_out_zero():
    def row(low: float, high: float, metric: str = "accuracy") -> EvalRow:
        bounds = {"delta": (low + high) / 2, "delta_low": low, "delta_high": high, "delta_from": "base"}
        return EvalRow(stage="sft", task="t", metric=metric, value=0.5, num_samples=9, **bounds)

    assert change(row(0.01, 0.2)).verdict == "up"
    assert change(row(-0.2, -0.01)).verdict == "down"
    assert change(row(0.0, 0.2)).verdict == change(row(-0.1, 0.2)).verdict == "unclear"
    assert [change(row(0.01, 0.2, metric)).is_better for metric in ("accuracy", "perplexity", "refused")] == [
        True,
        False,
        None,
    ]
    assert change(EvalRow(stage="s", task="t", metric="m", value=1, num_samples=1)) is None
    assert heldout_change(Heldout(before=measure(2.0), after=measure(1.95))).verdict == "unclear"
    assert heldout_change(Heldout(before=measure(2.0), after=measure(1.9))).is_better
    assert heldout_change(Heldout(before=measure(2.0))) is None


def test_a_share_is_told_from_other_numbers(tmp_path):
    shares = {line.task: line.is_share for line in headlines(collect(full_run(tmp_path)))}
    assert shares["facts_known"]
    assert not shares["general_text"]


def test_numbers_are_written_alike():
    assert [number(v) for v in (2.3149, 0.03123, 1234.6, 2e-5, 0, -0.5)] == [
        "2.31",
        "0.0312",
        "1\u202f235",
        "2e-5",
        "0",
        "\u22120.500",
    ]
    assert [percent(v) for v in (0.9761, 1, 0, 0.005)] == ["97.6\u202f%", "100\u202f%", "0\u202f%", "0.5\u202f%"]
    assert [duration(v) for v in (4.21, 59.6, 192, 7500)] == [
        "4.2\u202fs",
        "1\u202fmin 0\u202fs",
        "3\u202fmin 12\u202fs",
        "2\u202fh 05\u202fmin",
    ]
    assert (count(1234567), size(1.5 * 2**30), interval(0.1, None, True)) == (
        "1\u202f234\u202f567",
        "1.50\u202fGiB",
        "",
    )
    assert (difference(0.031, True), difference(-0.2, False)) == ("+3.1 points", "\u22120.200")


def test_ticks_of_an_axis_are_written_alike():
    assert axis([0.8, 1.0, 1.2]) == ["0.8", "1.0", "1.2"]
    assert axis([0, 0.0005, 0.001]) == ["0", "5e-4", "1e-3"]
    assert axis([0, 2500, 5000]) == ["0", "2\u202f500", "5\u202f000"]
    assert axis([-0.25, 0, 0.25]) == ["\u22120.25", "0.00", "0.25"]


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert ticks(1.23, 4.11) == [2, 3, 4]
    assert all(-1e-12 <= tick <= 3e-4 for tick in ticks(0, 3e-4))


def test_settings_that_differ_from_defaults_come_out(tmp_path):
    resolved = collect(full_run(tmp_path)).stages[1].manifest.settings
    found = {setting.key: setting for setting in settings("pretrain", resolved)}
    assert {key for key, setting in found.items() if setting.is_changed} == {
        "global_batch_size", "trainer.learning_rate", "trainer.max_steps", "trainer.bf16",
    }  # fmt: skip
    assert (found["seed"].value, found["seed"].is_changed) == ("42", False)
    assert next(one for one in settings("sft", {"seed": 7})).is_changed
    assert (found["trainer.learning_rate"].value, found["trainer.learning_rate"].default) == ("3e-4", "1e-5")
    assert not found["launch.num_processes"].is_changed
    assert all(setting.is_changed for setting in settings("a-later-kind", {"x": 1}))


def test_data_sources_show_only_what_was_set():
    source = {"path": "a.jsonl", "split": "train", "columns": {}, "fraction": None, "streaming": False}
    shown = {"path": "a.jsonl", "split": "train", "streaming": False}
    resolved = {"seed": 1, "data": [source], "heldout": {"other": [source]}}
    assert data_sources(resolved) == {"data": [shown], "heldout": {"other": [shown]}}
    assert data_sources({"data": [], "heldout": {}}) == {}
    assert settings("sft", {"heldout": {"other": [source]}, "from": "cpt"}) == []


def test_the_first_metric_of_a_task_is_its_headline(tmp_path):
    run = full_run(tmp_path)
    first = build_report(run).read_text(encoding="utf-8")
    assert "All metrics" not in first
    more_metrics(run)
    report = collect(run)
    assert [line.metric for line in headlines(report) if line.task == "chat_format"] == ["well_formed"]
    assert [line.metric for line in result_lines(report) if line.task == "chat_format"] == ["well_formed", "stopped"]
    text = build_report(run).read_text(encoding="utf-8")
    table, rest = text.split("All metrics")
    assert ("well_formed" in table, "stopped" in table, "stopped" in rest) == (True, False, True)
    line, made = largest_change(report, "sft")
    assert (line.task, line.metric, made.colour) == ("chat_format", "well_formed", "better")
    samples = num_samples(run.stage(5, "eval-sft").manifest().evals)
    assert samples == 6 * 200 + 60
    markdown = run.report.with_suffix(".md").read_text(encoding="utf-8")
    assert markdown.index("| chat_format | well_formed") < markdown.index("All metrics")
    assert markdown.index("All metrics") < markdown.index("| chat_format | stopped")


def more_metrics(run):
    """chat_format as well_formed, and as another metric that changed more."""
    for index, model in ((1, "base"), (3, "cpt"), (5, "sft")):
        folder = run.stage(index, f"eval-{model}")
        made = folder.manifest()
        rows = []
        for row in made.evals:
            if row.task != "chat_format":
                rows.append(row)
                continue
            rows.append(row.model_copy(update={"metric": "well_formed"}))
            delta = {"delta": 1.0, "delta_low": 0.9, "delta_high": 1.0} if row.delta_from else {}
            rows.append(row.model_copy(update={"metric": "stopped", **delta}))
        write_manifest(folder.path, made.model_copy(update={"evals": rows}))


def test_a_metric_of_seconds_is_a_time():
    assert fact("train_seconds", 104.2) == ("train time", "1\u202fmin 44\u202fs")
    assert fact("tokens", 1000.4) == ("tokens seen", "1\u202f000")
    left = SourceCount(source="a", num_read=9, num_rejected=1, num_duplicates=2, num_used=4, sha256="")
    assert left_over(left) == 2
    assert left_over(left.model_copy(update={"num_used": 12})) == 0


def test_the_terminal_summary_is_short(tmp_path):
    run = full_run(tmp_path)
    build_report(run)
    console = Console(record=True, width=100, file=(tmp_path / "out").open("w"))
    print_summary(run, console)
    text = console.export_text()
    assert len(text.splitlines()) < 16
    assert "2 stages in 3\u202fmin 26\u202fs" in text
    assert "99.5\u202f% \u2191" in text
    assert str(run.report) in text.replace("\n", "")


def test_an_evaluation_with_tools_has_several_headlines() -> None:
    measured = [
        "search_accuracy", "search_called", "search_accuracy_without", "python_accuracy", "not_found_accuracy",
        "needless_calls", "needless_accuracy", "accuracy, known", "num_calls",
    ]  # fmt: skip
    first = ["search_accuracy", "python_accuracy", "not_found_accuracy", "needless_calls"]
    assert headline_metrics("tools", measured, ()) == first
    assert headline_metrics("facts", ["accuracy", "search_accuracy"], ()) == ["accuracy"], "no evaluation with tools"
    assert [direction(name) for name in first] == ["higher", "higher", "higher", "lower"]
    assert short_name("tools", "needless_calls", ()) == "tools: needless calls"
    assert not is_share("num_calls", [0.5])


def test_every_kind_of_stage_says_what_it_did() -> None:
    told = {}
    for kind in KINDS.keys() - {"evaluate"}:
        made = Manifest(stage="a", kind=kind, fingerprint="f")
        told[kind] = did(StageReport("a", kind, "finished", "base", manifest=made))
    assert len(set(told.values())) == len(told) and not [text for text in told.values() if "stage of kind" in text]
    assert "searched" in told["search_index"] and "probe" not in told["search_index"]


def test_what_was_searched_for_is_told_with_its_counts() -> None:
    def told(kind: str, settings: dict[str, Any], **metrics: float) -> str:
        made = Manifest(stage="a", kind=kind, fingerprint="f", metrics=metrics)
        return did(StageReport("a", kind, "finished", "sft", settings, made)).replace("\N{NARROW NO-BREAK SPACE}", " ")

    refused = {"probes": ["probe"], "lookup": {"tools": []}}
    assert told("refusals", refused, lookups_found=1200, lookups_not_found=3) == (
        "Made training rows from probe: answers to what is known, refusals of what is not, and searches for that. "
        "1 200 searches found the answer, 3 did not."
    )
    assert told("refusals", {"probes": ["probe"], "relabel": "random"}).endswith(
        "what is not. The labels are shuffled: a control."
    )
    assert (
        told("search_index", {}, documents=1, passages=4660)
        == "Made 1 document ready to be searched, as 4 660 passages."
    )
