"""The report on runs that are whole, unfinished, failed, empty, hostile."""

import json

from control.report_runs import (
    FENCED,
    RECIPE,
    assert_no_text_becomes_html,
    assert_nothing_leaves_its_block,
    curve,
    evaluation,
    full_run,
    log,
    page_of,
    started,
)
from rich.console import Console

from llmkit.artifacts.files import write_json, write_text
from llmkit.artifacts.rundir import RunDir
from llmkit.report.build import build_report, report_json
from llmkit.report.collect import collect
from llmkit.report.terminal import print_answers, print_summary


def test_a_whole_chain_is_one_offline_page(tmp_path):
    run = full_run(tmp_path)
    page = page_of(run)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert page.all("href") != []
    assert all(target.startswith(("#", "data:")) for target in page.all("href"))
    assert page.all("src") == []
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in page.all("href") if target.startswith("#")} <= set(ids)
    assert {"top", "results", "answers", "stage-cpt", "stage-sft", "evaluations", "reproduce"} <= set(ids)
    for text in (
        "97.6\u202f%",
        "95.5\u201399.7",
        "+53.6 points",
        "no clear change",
        "812\u202f345",
        "ab12ab12ab12",
        "trl\xa01.16.0",
        "letters.jsonl:17: invalid UTF-8",
        "1.62M tokens",
    ):
        assert text in page.text, text
    assert "url(" not in run.report.read_text(encoding="utf-8")


def test_sections_stand_in_reading_order(tmp_path):
    ids = page_of(full_run(tmp_path)).all("id")
    order = ["top", "chain", "results", "answers", "stage-cpt", "stage-sft", "evaluations", "reproduce"]
    assert [name for name in ids if name in order] == order


def test_json_follows_the_chain(tmp_path):
    run = full_run(tmp_path)
    told = report_json(run)
    assert set(told) == {"run", "stages", "evals"}
    assert told["run"] == "assistant"
    assert [stage["name"] for stage in told["stages"]] == ["eval-base", "cpt", "eval-cpt", "sft", "eval-sft"]
    assert set(told["stages"][0]) == {"name", "kind", "seconds", "metrics"}
    assert told["stages"][1]["metrics"]["heldout/in-domain/after/loss"] == 1.42
    assert set(told["evals"][0]) == {"stage", "task", "metric", "value", "low", "high", "num_samples"}
    last = [row for row in told["evals"] if row["task"] == "facts_known"][-1]
    assert (last["stage"], last["value"]) == ("sft", 0.976)
    json.dumps(told, allow_nan=False)


def test_a_later_evaluation_of_an_earlier_model_does_not_become_the_final_row(tmp_path):
    run = full_run(tmp_path)
    evaluation(run, 6, "base", 0, None, "")
    last = [row for row in report_json(run)["evals"] if row["task"] == "facts_known"][-1]
    assert last["stage"] == "sft"


def test_text_of_models_and_users_never_becomes_html(tmp_path):
    assert_no_text_becomes_html(full_run, tmp_path, 12 + 2 * 3 - 1)


def test_text_of_models_cannot_leave_its_block_in_markdown(tmp_path):
    assert_nothing_leaves_its_block(full_run(tmp_path, FENCED))


def test_an_unfinished_stage_shows_its_last_step(tmp_path):
    run = RunDir(tmp_path / "assistant")
    write_text(run.recipe, RECIPE)
    evaluation(run, 1, "base", 0, None, "")
    started(run, 2, "cpt", "pretrain")
    log(run.stage(2, "cpt").metrics, curve(200)[:40])
    with run.stage(2, "cpt").metrics.open("a") as file:
        file.write('{"time": 17.1, "phase": "tr')  # killed while writing
    stages = {stage.name: stage for stage in collect(run).stages}
    assert (stages["cpt"].status, stages["sft"].status) == ("unfinished", "planned")
    assert stages["cpt"].warnings == []
    page = page_of(run)
    assert "Unfinished; last seen at step 40 of 200, phase train, 16\u202fs after its start." in page.text
    assert "not started" in page.text
    assert [stage["name"] for stage in report_json(run)["stages"]] == ["eval-base"]


def test_a_failed_stage_shows_problem_and_cure(tmp_path):
    run = RunDir(tmp_path / "assistant")
    write_text(run.recipe, RECIPE)
    started(run, 1, "cpt", "pretrain")
    problem = {"where": "letters.jsonl", "what": "holds no rows", "cure": "check the 'path'"}
    write_json(run.stage(1, "cpt").error, {"type": "DataError", "problems": [problem], "exit_code": 2})
    started(run, 2, "sft", "sft")
    write_json(run.stage(2, "sft").error, {"type": "ZeroDivisionError", "message": "division by zero", "exit_code": 1})
    page = page_of(run)
    assert "letters.jsonl: holds no rows; check the 'path'" in page.text
    assert "ZeroDivisionError: division by zero" in page.text
    assert page.text.count("What went wrong") == 2


def test_a_finished_stage_is_not_failed_by_an_old_error(tmp_path):
    run = full_run(tmp_path)
    write_json(run.stage(2, "cpt").error, {"type": "DataError", "message": "of an earlier try", "exit_code": 1})
    assert "of an earlier try" not in page_of(run).text


def test_an_empty_run_is_a_page_too(tmp_path):
    run = RunDir(tmp_path / "assistant")
    run.path.mkdir()
    page = page_of(run)
    assert "No stage has finished yet." in page.text
    assert report_json(run) == {"run": "assistant", "stages": [], "evals": []}
    console = Console(record=True, width=80, file=(tmp_path / "out").open("w"))
    print_summary(run, console)
    assert "No stage has finished yet." in console.export_text()


def test_phases_have_curves_of_their_own(tmp_path):
    run = full_run(tmp_path)
    log(run.stage(2, "cpt").metrics, [{**row, "phase": phase} for phase in ("warm", "train") for row in curve(5)])
    text = page_of(run).text
    assert "Curves, phase train" in text
    assert "Curves, phase warm" in text


def test_unicode_and_control_characters(tmp_path):
    run = full_run(tmp_path, " \u2603 \u05e9\u05dc\u05d5\u05dd \U0001d11e \x1b[31m\x00")
    page = page_of(run)
    assert "\u2603 \u05e9\u05dc\u05d5\u05dd \U0001d11e \u241b[31m\u2400" in page.text
    console = Console(record=True, width=100, file=(tmp_path / "out").open("w"))
    print_answers(run, console)
    assert "\x1b" not in console.export_text()


def test_nothing_half_written_is_left(tmp_path):
    run = full_run(tmp_path)
    build_report(run)
    assert sorted(path.name for path in run.path.iterdir() if path.is_file()) == [
        "recipe.yaml",
        "report.html",
        "report.md",
    ]
