"""Batch scripts against golden files, run by a shell with stand-ins for Slurm's commands; submission in order."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from llmkit.cli.run import run as run_command
from llmkit.errors import RecipeError, RunError
from llmkit.launch.execute import check_machines, select
from llmkit.launch.folders import moves
from llmkit.launch.slurm import write_jobs
from llmkit.plan.make import make
from llmkit.plan.step import Plan
from llmkit.recipe.load import load

GOLDEN = Path(__file__).parent / "slurm"
ASKED = {"stage": None, "start": None, "step": None, "dry_run": False, "verbose": False, "slurm": True}
SLURM = """\
slurm:
  partition: gpu
  account: lab-42
  time: 12:00:00
  gpu_type: h100
  cpus_per_task: 64
  mem: 900G
  options: [--exclusive]
  setup: [module load cuda, "source 'my env/bin/activate'"]
  stages:
    sft: {time: 2-00:00:00, options: [--constraint=ib]}
    eval-sft: {mem: 100G}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs.jsonl").write_text("{}\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""\
run: {{name: demo, output_dir: {tmp_path}/runs}}
model: {{name_or_path: org/model}}
stages:
  - name: cpt
    kind: pretrain
    data: [{{path: docs.jsonl}}]
    launch: {{accelerate: zero3, num_processes: 8}}
  - name: sft
    kind: sft
    from: cpt
    data: [{{path: docs.jsonl}}]
    launch: {{accelerate: zero3, num_processes: 16, num_machines: 2}}
prompts: [Hello]
{SLURM}""")
    return path


def written(recipe: Path, *words: str) -> dict[str, str]:
    """Step -> script."""
    loaded = load([recipe], words)
    plan = make(loaded)
    return {job.name: job.script.read_text() for job in write_jobs(plan, select(plan), loaded.recipe)}


def stand_in(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command on PATH that is this shell code."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{code}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("step", ["cpt", "sft", "eval-sft"])
def test_scripts_are_as_they_were_read(recipe: Path, step: str) -> None:
    """`LLMKIT_GOLDEN=1` writes the files anew, to be read."""
    text = written(recipe)[step].replace(str(recipe.parent), "/shared").replace(sys.executable, "/env/bin/python")
    golden = GOLDEN / f"{step}.sh"
    if os.environ.get("LLMKIT_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_script_is_shell_and_every_step_has_one(recipe: Path) -> None:
    found = written(recipe)
    assert list(found) == ["eval-base", "cpt", "eval-cpt", "sft", "eval-sft"]
    for text in found.values():
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "--gpus-per-node" not in written(recipe, "stages.cpt.launch.accelerate=cpu/zero3")["cpt"]


def test_jobs_run_the_recipe_as_it_was(recipe: Path) -> None:
    written(recipe, "run.seed=7")
    kept = recipe.parent / "runs" / "demo" / "slurm" / "recipe.yaml"
    assert load([kept]).recipe == load([recipe], ["run.seed=7"]).recipe
    assert {s.name: s.fingerprint for s in make(load([kept])).steps} == {
        s.name: s.fingerprint for s in make(load([recipe], ["run.seed=7"])).steps
    }
    assert load([kept]).recipe.slurm.of("eval-sft").options == ["--exclusive"], "what a step leaves out is shared"


def test_scripts_of_an_earlier_recipe_go(recipe: Path) -> None:
    written(recipe)
    lines = [line for line in recipe.read_text().splitlines() if "eval-sft" not in line and "prompts" not in line]
    recipe.write_text("\n".join(lines))
    written(recipe)
    names = sorted(path.name for path in (recipe.parent / "runs" / "demo" / "slurm").glob("*.sh"))
    assert names == ["01-cpt.sh", "02-sft.sh"]


@pytest.mark.parametrize(
    ("slurm", "what"),
    [
        ("{partition: 'a b'}", "slurm.partition: must be one word"),
        ("{account: $HOME}", "slurm.account: must be one word"),
        ("{options: [exclusive]}", "must be an option of sbatch"),
        ('{setup: ["a\\nb"]}', "must be one line"),
        ("{stages: {stf: {time: 1:00}}}", "slurm.stages.stf: no such step; have: eval-base, cpt"),
        ("{gpus: 3}", "slurm.gpus: unknown key"),
    ],
)
def test_refused(recipe: Path, slurm: str, what: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make(load([recipe], [f"slurm={slurm}"]))
    assert what in str(caught.value)


SBATCH = """\
echo "$@" >> {folder}/calls
case "$*" in *"$REFUSED"*) echo "sbatch: error: invalid partition" >&2; exit 1;; esac
number=$(wc -l < {folder}/calls)
case "$1" in --parsable) echo "$((100 + number));cluster";; esac
"""


def command(recipe: Path, submit: bool, capsys: pytest.CaptureFixture[str]) -> str:
    run_command([str(recipe)], **{**ASKED, "submit": submit})
    return capsys.readouterr().out


def test_nothing_is_submitted_unless_told(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "not checked: there is no sbatch here" in command(recipe, False, capsys)
    with pytest.raises(RunError, match="there is no sbatch here"):
        command(recipe, True, capsys)
    stand_in(recipe.parent, "sbatch", SBATCH.format(folder=recipe.parent), monkeypatch)
    monkeypatch.setenv("REFUSED", "no-such-word")
    assert "nothing is submitted without --submit" in command(recipe, False, capsys)
    calls = (recipe.parent / "calls").read_text().splitlines()
    assert len(calls) == 5 and all(line.startswith("--test-only /") for line in calls)


def submitted(recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Script -> what it waits for, by script: from what sbatch was told, in its order."""
    (recipe.parent / "calls").unlink(missing_ok=True)
    stand_in(recipe.parent, "sbatch", SBATCH.format(folder=recipe.parent), monkeypatch)
    monkeypatch.setenv("REFUSED", "no-such-word")
    command(recipe, True, capsys)
    lines = (recipe.parent / "calls").read_text().splitlines()
    calls = [line.split() for line in lines if line.startswith("--parsable")]
    names = {str(100 + lines.index(" ".join(call)) + 1): Path(call[-1]).stem for call in calls}
    found = {}
    for call in calls:
        waits = next((word.removeprefix("--dependency=") for word in call if word.startswith("--dependency")), "")
        assert ("--kill-on-invalid-dep=yes" in call) == bool(waits)
        found[Path(call[-1]).stem] = re.sub(r"\d{3}", lambda number: names[number[0]], waits)
    return found


def test_each_job_waits_for_what_it_reads(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No training waits for an evaluation: one that fails, or waits for its GPU, stops none."""
    assert submitted(recipe, monkeypatch, capsys) == {
        "01-eval-base": "",
        "02-cpt": "",
        "03-eval-cpt": "afterok:02-cpt:01-eval-base",
        "04-sft": "afterok:02-cpt",
        "05-eval-sft": "afterok:04-sft:03-eval-cpt",
    }
    assert (recipe.parent / "runs" / "demo" / "slurm" / "05-eval-sft.sh").is_file()


MANY = """\
  - {name: a, kind: sft, from: sft, data: [{path: docs.jsonl}]}
  - {name: b, kind: sft, from: sft, seed: 7, data: [{path: docs.jsonl}]}
  - {name: c, kind: sft, from: sft, seed: 8, data: [{path: docs.jsonl}], launch: {accelerate: ddp, num_processes: 2}}
  - {name: d, kind: sft, from: sft, seed: 9, data: [{path: docs.jsonl}]}
"""


def test_steps_that_ask_for_the_same_are_an_array(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(recipe.read_text().replace("prompts:", f"{MANY}prompts:") + "    eval-d: {mem: 1G}\n")
    found = submitted(recipe, monkeypatch, capsys)
    assert found["06-a-array"] == "afterok:04-sft"
    assert found["10-c"] == "afterok:04-sft", "it asks for two GPUs"
    # the evaluation of each task waits for that task, and the one with settings of its own alone
    assert found["07-eval-a-array"] == "afterok:05-eval-sft,aftercorr:06-a-array"
    assert found["13-eval-d"] == "afterok:06-a-array_2:05-eval-sft"
    assert found["11-eval-c"] == "afterok:10-c:05-eval-sft"
    folder = recipe.parent / "runs" / "demo" / "slurm"
    assert "\n#SBATCH --array=0,1,2\n" in (folder / "06-a-array.sh").read_text()
    text = (folder / "07-eval-a-array.sh").read_text()
    text = text.replace(str(recipe.parent), "/shared").replace(sys.executable, "/env/bin/python")
    if os.environ.get("LLMKIT_GOLDEN"):
        (GOLDEN / "array.sh").write_text(text)
    assert text == (GOLDEN / "array.sh").read_text()


def test_evaluations_of_finished_models_are_an_array(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are compared with the same evaluation."""
    recipe.write_text(recipe.read_text().replace("prompts:", f"{MANY}prompts:"))
    monkeypatch.setattr("llmkit.cli.run.make", lambda loaded: trained(make(loaded)))
    found = submitted(recipe, monkeypatch, capsys)
    assert found == {
        "01-eval-base": "",
        "03-eval-cpt": "afterok:01-eval-base",
        "05-eval-sft": "afterok:03-eval-cpt",
        "07-eval-a-array": "afterok:05-eval-sft",
    }


def trained(plan: Plan) -> Plan:
    """As if all but the evaluations were finished."""
    return replace(plan, steps=[s if s.kind == "evaluate" else replace(s, action="skip") for s in plan.steps])


def test_a_task_of_an_array_runs_its_step_and_is_queued_again_alone(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write_text(recipe.read_text().replace("prompts:", f"{MANY}prompts:"))
    folder = recipe.parent
    lines = written(recipe, "slurm.setup=[]")["a, b, d"].replace(sys.executable, "tell")
    (folder / "job.sh").write_text(lines)
    tell = f'trap "exit 130" TERM; echo "$*" > {folder}/said; while :; do sleep 0.05; done'
    stand_in(folder, "tell", tell, monkeypatch)
    stand_in(folder, "scontrol", f'echo "$@" >> {folder}/said', monkeypatch)
    env = {**os.environ, "SLURM_JOB_ID": "70", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "2"}
    job = subprocess.Popen(["bash", str(folder / "job.sh")], cwd=folder, env=env)
    while not (folder / "said").exists() or not (folder / "said").read_text():
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(20) == 130
    said = (folder / "said").read_text().splitlines()
    assert said[0].endswith("recipe.yaml --step d") and said[1:] == ["requeue 70_2"]


def test_jobs_of_single_steps_share_the_run(recipe: Path) -> None:
    run = make(load([recipe])).run_dir
    with run.locked("cpt"), run.locked("eval-base"), run.for_a_moment():
        for step, where in ((None, "demo"), ("cpt", "demo")):
            with pytest.raises(RunError, match=f"{where}: another run is working here"), run.locked(step):
                pass
    with run.locked(), pytest.raises(RunError, match="another run is working here"), run.locked("cpt"):
        pass


def test_folders_are_numbered_before_jobs_run(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs beside each other must not rename each other's folders."""
    folder = recipe.parent / "runs" / "demo"
    (folder / "01-old").mkdir(parents=True)
    assert moves(make(load([recipe])))
    assert f"set aside {folder}/.old/01-old" in command(recipe, False, capsys).replace("\n", "")
    assert not moves(make(load([recipe]))) and not (folder / "01-old").exists()


def test_what_slurm_refuses_is_said_before_anything_waits(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(recipe.parent, "sbatch", SBATCH.format(folder=recipe.parent), monkeypatch)
    monkeypatch.setenv("REFUSED", "04-sft.sh")
    with pytest.raises(RunError, match=r"04-sft.sh: sbatch: error: invalid partition; set 'slurm' in the recipe"):
        command(recipe, True, capsys)
    assert "--parsable" not in (recipe.parent / "calls").read_text()
    monkeypatch.setenv("REFUSED", "--parsable --dependency=afterok:107:106")
    (recipe.parent / "calls").unlink()
    with pytest.raises(
        RunError, match=r"queued before it: eval-base \(106\), cpt \(107\); take them back with scancel"
    ):
        command(recipe, True, capsys)


def test_a_job_that_is_told_stops_and_is_queued_again_and_a_cancelled_one_is_not(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real script in a real shell; only the work and scontrol are stand-ins."""
    folder = recipe.parent
    work = folder / "work"
    work.write_text(
        "#!/bin/bash\ntrap 'trap : TERM; sleep 0.3; echo stopped >> said; exit 130' TERM\ntouch begun\nsleep 9 & wait\n"
    )
    work.chmod(0o755)
    script = folder / "job.sh"
    lines = written(recipe, "slurm.setup=[]")["cpt"].splitlines()
    start = next(place for place, line in enumerate(lines) if line.endswith("--step cpt &"))
    script.write_text("\n".join([*lines[:start], f"{work} &", *lines[start + 1 :]]))
    stand_in(folder, "scontrol", f'echo "$@" >> {folder}/said', monkeypatch)
    notice, cancel = signal.SIGUSR1, signal.SIGTERM
    for restarts, sent, requeued in (
        ("9", [notice], ["requeue 5"]),
        ("10", [notice], []),
        ("9", [cancel], []),
        ("9", [notice, cancel], []),
    ):
        for name in ("said", "begun"):
            (folder / name).unlink(missing_ok=True)
        env = {**os.environ, "SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": restarts}
        job = subprocess.Popen(["bash", str(script)], cwd=folder, env=env)
        while not (folder / "begun").exists():
            time.sleep(0.02)
        for number in sent:
            job.send_signal(number)
            time.sleep(0.1)
        assert job.wait(20) == 130
        assert (folder / "said").read_text().splitlines() == ["stopped", *requeued]


def test_a_job_ends_as_its_work_does(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage file is refused here (no such model): the script's exit code is llmkit's, and nothing is queued."""
    script = recipe.parent / "runs" / "demo" / "slurm" / "02-cpt.sh"
    written(recipe, "slurm.setup=[]", "stages.cpt.from=base")
    stand_in(recipe.parent, "scontrol", "exit 99", monkeypatch)
    (recipe.parent / "runs" / "demo" / "slurm" / "recipe.yaml").write_text("{}")
    done = subprocess.run(
        ["bash", str(script)], capture_output=True, text=True, env={**os.environ, "SLURM_JOB_ID": "5"}
    )
    assert done.returncode == 2 and "is required" in done.stderr


def test_several_machines_each_start_llmkit(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`srun` stands in as the second machine of two."""
    folder = recipe.parent
    lines = written(recipe, "slurm.setup=[]")["sft"].replace(sys.executable, "tell").splitlines()
    (folder / "job.sh").write_text("\n".join(lines))
    stand_in(folder, "scontrol", "echo node7; echo node8", monkeypatch)
    stand_in(folder, "srun", 'while [ "$1" != bash ]; do shift; done; SLURM_NODEID=1 "$@"', monkeypatch)
    tell = f'echo "$MACHINE_RANK $MASTER_ADDR $MASTER_PORT $*" > {folder}/said'
    stand_in(folder, "tell", tell, monkeypatch)
    env = {**os.environ, "SLURM_JOB_ID": "40005", "SLURM_JOB_NODELIST": "node[7-8]"}
    subprocess.run(["bash", str(folder / "job.sh")], check=True, env=env)
    words = (folder / "said").read_text().split()
    assert words[:3] == ["1", "node7", "20005"]
    assert words[3:] == ["-m", "llmkit.cli.main", "run", f"{folder}/runs/demo/slurm/recipe.yaml", "--step", "sft"]


def test_a_step_for_several_machines_asks_which_one_this_is(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(load([recipe]))
    for name in ("MACHINE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        RunError, match=r"stage 'sft': takes 2 machines, and MACHINE_RANK, MASTER_ADDR, MASTER_PORT are"
    ):
        check_machines(plan.steps)
    check_machines(select(plan, one="cpt"))


def test_one_step_leaves_its_evaluation(recipe: Path) -> None:
    plan = make(load([recipe]))
    assert [step.name for step in select(plan, one="cpt")] == ["cpt"]
    assert [step.name for step in select(plan, stage="cpt")] == ["cpt", "eval-cpt"]
    with pytest.raises(RunError, match="--step eval-sft: 'eval-sft' needs 'sft', which is not finished"):
        select(plan, one="eval-sft")


def test_options_that_fight(recipe: Path) -> None:
    with pytest.raises(RunError, match="--stage cpt --step sft: ask for different steps"):
        run_command([str(recipe)], **{**ASKED, "stage": "cpt", "step": "sft", "submit": False})
    with pytest.raises(RunError, match="--submit: has no effect without --slurm"):
        run_command([str(recipe)], **{**ASKED, "slurm": False, "submit": True})
