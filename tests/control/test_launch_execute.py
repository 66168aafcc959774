"""Running a plan with a fake worker: skip, resume, fail, stop, lock."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from llmkit.artifacts.rundir import RunDir
from llmkit.errors import RunError, StageFailed
from llmkit.launch import worker
from llmkit.launch.execute import Options, execute, select
from llmkit.launch.progress import numbers
from llmkit.plan.command import Command
from llmkit.plan.make import make
from llmkit.plan.step import Plan
from llmkit.recipe.load import load

pytestmark = pytest.mark.usefixtures("code_stands_still")

FAKE = """
import json, os, pathlib, subprocess, sys, time
told = json.loads(pathlib.Path(sys.argv[1]).read_text())
folder, name = pathlib.Path(told["stage_dir"]), told["stage"]["name"]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(name + (" resumed" if (folder / "checkpoints").exists() else "") + "\\n")
def log(step):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"time": 0.1, "phase": "train", "step": step, "total": 3, "loss": 2.5}) + "\\n")
log(1)
behaviour = os.environ.get("FAKE_" + name, "finish")
if behaviour == "hang":
    # torchrun starts workers in sessions of their own
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    checkpoint = folder / "checkpoints" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / ".complete").touch()
    (folder / "pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)
if behaviour == "crash":
    for number in range(30):
        print("line", number)
    sys.exit(7)
if behaviour == "refuse":
    problem = {"where": "docs.jsonl:3", "what": "is not JSON", "cure": "mend it"}
    (folder / "error.json").write_text(json.dumps({"type": "DataError", "problems": [problem], "exit_code": 2}))
    sys.exit(2)
log(3)
(folder / "model").mkdir(exist_ok=True)
manifest = {"stage": name, "kind": told["stage"]["kind"], "fingerprint": told["fingerprint"]}
(folder / "manifest.json").write_text(json.dumps(manifest))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "docs.jsonl").write_text("{}\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""\
run: {{name: demo, output_dir: {tmp_path}/runs}}
model: {{name_or_path: org/model}}
stages:
  - {{name: cpt, kind: pretrain, data: [{{path: {tmp_path}/docs.jsonl}}]}}
  - {{name: sft, kind: sft, from: cpt, data: [{{path: {tmp_path}/docs.jsonl}}]}}
prompts: [Hello]
""")
    return path


def planned(recipe: Path, *words: str, **behaviours: str) -> Plan:
    """A plan whose workers are fakes that behave as told."""
    plan = make(load([recipe], words))
    env = {"CALLS": str(recipe.parent / "calls"), **{f"FAKE_{name}": value for name, value in behaviours.items()}}

    def fake(path: Path) -> Command:
        return Command((sys.executable, str(recipe.parent / "fake.py"), str(path)), env)

    return replace(plan, steps=[replace(step, command=fake(step.stage_dir.stage_file)) for step in plan.steps])


def run(recipe: Path, *words: str, options: Options | None = None, **behaviours: str) -> str:
    out = io.StringIO()
    execute(planned(recipe, *words, **behaviours), load([recipe], words).recipe, Console(file=out, width=200), options)
    return out.getvalue()


def calls(recipe: Path) -> list[str]:
    path = recipe.parent / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def run_dir(recipe: Path) -> RunDir:
    return RunDir(recipe.parent / "runs" / "demo")


def folders(recipe: Path) -> list[str]:
    return [stage.path.name for stage in run_dir(recipe).stages()]


ALL = ["eval-base", "cpt", "eval-cpt", "sft", "eval-sft"]


def test_all_steps_in_order_and_then_none(recipe: Path) -> None:
    text = run(recipe)
    assert calls(recipe) == ALL
    assert "[2/5] cpt: run (not run yet)" in text
    assert "cpt: train 1/3  loss 2.5" in text, "without a terminal: a line per logged step"
    assert "cpt: skipped (finished, nothing changed)" in run(recipe)
    assert calls(recipe) == []


def test_what_is_left_behind(recipe: Path) -> None:
    run(recipe, "run.seed=3")
    folder = run_dir(recipe)
    told = json.loads((folder.path / "02-cpt" / "stage.json").read_text())
    assert told["stage"]["seed"] == 3
    assert "fake.py" in (folder.path / "02-cpt" / "log.txt").read_text(), "the log opens with the command"
    again = load([folder.recipe]).recipe
    assert again == load([recipe], ["run.seed=3"]).recipe, "the resolved recipe can be run as it is"


def test_a_changed_stage_is_set_aside_and_run_again(recipe: Path) -> None:
    run(recipe)
    calls(recipe)
    folder = run_dir(recipe).path
    (folder / "04-sft" / "model" / "old").touch()
    run(recipe, "stages.sft.seed=1")
    assert calls(recipe) == ["sft", "eval-sft"]
    assert not (folder / "04-sft" / "model" / "old").exists()
    assert (folder / ".old" / "04-sft" / "model" / "old").exists(), "what was finished is kept"


def test_a_crash_ends_with_its_log_and_keeps_what_was_finished(recipe: Path) -> None:
    with pytest.raises(StageFailed) as caught:
        run(recipe, sft="crash", options=Options(command=("llmkit", "run", "my recipe.yaml")))
    text = str(caught.value)
    assert caught.value.exit_code == 1
    assert "stage 'sft' failed (exit code 7)" in text
    assert "  | line 29" in text
    assert "  | line 10" in text
    assert "  | line 9\n" not in text
    assert f"log: {run_dir(recipe).path}/04-sft/log.txt" in text
    assert "go on with: llmkit run 'my recipe.yaml'" in text
    calls(recipe)
    run(recipe)
    assert calls(recipe) == ["sft", "eval-sft"]


def test_what_an_evaluation_has_asked_and_judged_is_kept(recipe: Path) -> None:
    """Answers and paid verdicts outlive a kill and a change of the settings; the worker knows which of them hold."""
    with pytest.raises(StageFailed):
        run(recipe, **{"eval-sft": "crash", "cpt": "finish"})
    folder = run_dir(recipe).path
    kept = [folder / name / "data" / "steps" / "answers-00000.jsonl" for name in ("05-eval-sft", "04-sft")]
    for path in kept:
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert next(step.action for step in planned(recipe).steps if step.name == "eval-sft") == "resume"
    run(recipe)
    assert kept[0].exists()
    run(recipe, "prompts=[Bye]")
    assert kept[0].exists() and (folder / ".old" / "05-eval-sft" / "manifest.json").exists()
    run(recipe, "prompts=[Bye]", "stages.sft.seed=1")
    assert not kept[1].exists(), "a training stage has no such steps"


def test_a_users_mistake_is_shown_in_its_own_words(recipe: Path) -> None:
    with pytest.raises(StageFailed) as caught:
        run(recipe, cpt="refuse")
    assert caught.value.exit_code == 2
    assert str(caught.value).splitlines()[0] == "docs.jsonl:3: is not JSON; mend it"
    run(recipe)
    assert not run_dir(recipe).stage(2, "cpt").error.exists(), "an old error does not stay"


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids(recipe: Path) -> list[int]:
    path = run_dir(recipe).path / "02-cpt" / "pids"
    wait_for(lambda: path.exists() and len(path.read_text().split()) == 2)
    return [int(word) for word in path.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_ends_every_process_and_the_stage_resumes(recipe: Path, number: signal.Signals) -> None:
    found: list[int] = []

    def stop() -> None:
        with contextlib.suppress(AssertionError):
            found.extend(pids(recipe))
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(StageFailed) as caught:
        run(recipe, cpt="hang")
    thread.join()
    assert caught.value.exit_code == 130
    assert "go on with: llmkit run" in str(caught.value)
    assert len(found) == 2
    assert not any(alive(pid) for pid in found)
    calls(recipe)
    assert "cpt: resume (it did not finish; goes on from checkpoint-1)" in run(recipe)
    assert calls(recipe)[0] == "cpt resumed"


def test_a_killed_launcher_takes_its_workers_along(recipe: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from llmkit.plan import code
from test_launch_execute import run
code.PACKAGE = Path({str(recipe.parent / "package")!r})
run(Path({str(recipe)!r}), cpt="hang")
"""
    launcher = subprocess.Popen([sys.executable, "-c", code])
    found = pids(recipe)
    assert all(alive(pid) for pid in found)
    launcher.kill()
    launcher.wait()
    wait_for(lambda: not any(alive(pid) for pid in found))
    run(recipe)
    assert calls(recipe)[-4] == "cpt resumed"


def test_workers_that_do_not_listen_are_killed(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "GRACE", 0.3)
    fake = FAKE.replace(
        'if behaviour == "hang":',
        'import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif behaviour == "hang":',
    )
    (recipe.parent / "fake.py").write_text(fake)
    found: list[int] = []

    def stop() -> None:
        found.extend(pids(recipe))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(StageFailed):
        run(recipe, cpt="hang")
    thread.join()
    assert not any(alive(pid) for pid in found)


def test_a_second_run_is_kept_out(recipe: Path) -> None:
    plan = planned(recipe)
    with plan.run_dir.locked(), pytest.raises(RunError, match=f"another run is working here .process {os.getpid()}"):
        execute(plan, load([recipe]).recipe, Console(file=io.StringIO()))
    assert calls(recipe) == []


def test_one_stage_and_from_a_stage(recipe: Path) -> None:
    with pytest.raises(RunError, match="'sft' needs 'cpt', which is not finished; use --from cpt"):
        run(recipe, options=Options(stage="sft"))
    run(recipe, options=Options(stage="cpt"))
    assert calls(recipe) == ["cpt", "eval-cpt"]
    run(recipe, options=Options(start="sft"))
    assert calls(recipe) == ["sft", "eval-sft"]
    run(recipe)
    assert calls(recipe) == ["eval-base"]
    with pytest.raises(RunError, match="no such stage; have: eval-base, cpt"):
        select(planned(recipe), "stf")


def test_new_numbers_keep_what_is_finished(recipe: Path) -> None:
    run(recipe)
    calls(recipe)
    assert "set aside" in run(recipe, "prompts=[]")
    assert calls(recipe) == []
    assert folders(recipe) == ["01-cpt", "02-sft"]
    told = json.loads((run_dir(recipe).path / "02-sft" / "stage.json").read_text())
    assert told["input_model"].endswith("01-cpt/model")
    run(recipe)
    assert calls(recipe) == ["eval-base", "eval-cpt", "eval-sft"]
    assert folders(recipe) == ["01-eval-base", "02-cpt", "03-eval-cpt", "04-sft", "05-eval-sft"]


def test_new_numbers_with_a_single_stage(recipe: Path) -> None:
    run(recipe, "prompts=[]", options=Options(stage="cpt"))
    run(recipe, options=Options(stage="sft"))
    assert calls(recipe) == ["cpt", "sft", "eval-sft"]
    assert folders(recipe) == ["02-cpt", "04-sft", "05-eval-sft"]


def test_a_folder_that_cannot_be_written(recipe: Path) -> None:
    (recipe.parent / "runs").write_text("a file in the way")
    with pytest.raises(RunError, match=r"run\.output_dir"):
        run(recipe)


def test_verbose_shows_what_workers_print(recipe: Path) -> None:
    assert "line 3" not in run_failing(recipe, verbose=False)
    assert "line 3" in run_failing(recipe, verbose=True)


def run_failing(recipe: Path, verbose: bool) -> str:
    out = io.StringIO()
    with pytest.raises(StageFailed):
        execute(planned(recipe, cpt="crash"), load([recipe]).recipe, Console(file=out), Options(verbose=verbose))
    return out.getvalue()


def test_a_bar_on_a_terminal(recipe: Path) -> None:
    out = io.StringIO()
    execute(planned(recipe), load([recipe]).recipe, Console(file=out, force_terminal=True, width=120))
    assert "cpt: train" in out.getvalue()


def test_numbers_of_a_record() -> None:
    record = {
        "time": 1.0,
        "phase": "train",
        "step": 1,
        "total": 2,
        "loss": 2.34567,
        "learning_rate": 2e-5,
        "tokens": 100,
    }
    assert numbers(record) == "loss 2.346  learning_rate 2e-05  tokens 100"
