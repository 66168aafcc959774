"""A machine beside the main one waits, takes part, and ends when the main one fails. The main one is a thread here."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from test_launch_execute import calls, planned, recipe, run

from llmkit.errors import StageFailed
from llmkit.launch import machines
from llmkit.launch.execute import Options
from llmkit.launch.folders import prepare
from llmkit.launch.machines import follow, is_main
from llmkit.plan.step import Plan

__all__ = ["recipe"]

pytestmark = pytest.mark.usefixtures("code_stands_still")
TWO = "stages.cpt.launch={accelerate: ddp, num_processes: 2, num_machines: 2}"
ONE = Options(step="cpt")


@pytest.fixture(autouse=True)
def _second(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MACHINE_RANK", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29400")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machines, "POLL", 0.02)


def following(plan: Plan, main: Callable[[], None], options: Options = ONE) -> str:
    out = io.StringIO()

    def late() -> None:
        time.sleep(0.3)
        main()

    thread = threading.Thread(target=late)
    thread.start()
    follow(plan, Console(file=out, width=200), options)
    thread.join()
    return out.getvalue()


def test_it_takes_part_when_the_main_machine_has_begun(recipe: Path) -> None:
    assert not is_main()
    plan = planned(recipe, TWO)
    step = plan.steps[1]
    said = following(plan, lambda: prepare(plan.run_dir, step))
    assert "cpt: takes part" in said and calls(recipe) == ["cpt"]
    assert (step.stage_dir.path / "log-1.txt").is_file() and not step.stage_dir.log.exists()


def test_it_waits_for_what_takes_one_machine(recipe: Path) -> None:
    plan = planned(recipe)
    step = plan.steps[1]

    def finish() -> None:
        prepare(plan.run_dir, step)
        time.sleep(0.2)
        manifest = {"stage": "cpt", "kind": "pretrain", "fingerprint": step.fingerprint}
        (step.stage_dir.path / "manifest.json").write_text(json.dumps(manifest))

    assert following(plan, finish) == "" and calls(recipe) == []


def test_a_failure_of_the_main_machine_ends_it(recipe: Path) -> None:
    plan = planned(recipe)
    step = plan.steps[1]
    old = step.stage_dir.error
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    time.sleep(0.05)
    failed = []

    def fail() -> None:
        failed.append(time.monotonic())
        old.write_text('{"new": 1}')

    with pytest.raises(StageFailed, match="stage 'cpt' failed on the main machine"):
        follow_until(plan, fail, failed)


def follow_until(plan: Plan, main: Callable[[], None], failed: list[float]) -> None:
    try:
        following(plan, main)
    except StageFailed:
        ended = time.monotonic()
        assert failed and ended >= failed[0], "an error of an earlier run counts for nothing"
        raise


def test_a_failure_of_its_own_workers_ends_it(recipe: Path) -> None:
    plan = planned(recipe, TWO, cpt="crash")
    with pytest.raises(StageFailed, match=r"failed on this machine \(exit code 7\)"):
        following(plan, lambda: prepare(plan.run_dir, plan.steps[1]))


def test_what_is_finished_is_not_waited_for(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINE_RANK", "0")
    run(recipe, options=Options(stage="cpt"))
    calls(recipe)
    monkeypatch.setenv("MACHINE_RANK", "1")
    plan = planned(recipe)
    assert next(step.action for step in plan.steps if step.name == "cpt") == "skip"
    assert following(replace(plan), lambda: None) == "" and calls(recipe) == []
