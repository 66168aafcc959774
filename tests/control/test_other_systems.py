"""The control plane where Python lacks what only Unix has: commands that start no worker work, `run` says why not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WINDOWS = """
import sys
HIDDEN = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "posix_spawn")
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
for name in HIDDEN:
    sys.modules.pop(name, None)
import os, signal
for owner, names in ((signal, ("SIGKILL", "SIGCHLD")), (os, ("sched_getaffinity", "setsid", "killpg", "getuid"))):
    for name in names:
        delattr(owner, name)
from llmkit.cli.main import main
sys.argv = ["llmkit", *sys.argv[1:]]
main()
"""
ROOT = Path(__file__).resolve().parents[2]
WORKING = {
    "validate": "validate recipe.yaml",
    "plan": "plan recipe.yaml",
    "run --dry-run": "run recipe.yaml --dry-run",
    "report": "report runs/old",
    "schema": "schema",
    "new": "new",
    "import": "import foreign.yaml --from trl --stage sft",
    "rewards": "rewards",
}
"""Command, as docs/cluster.md calls it -> its words."""
RECIPE = """\
run: {name: demo, output_dir: runs}
model: {name_or_path: Qwen/Qwen3-0.6B-Base}
stages: [{kind: pretrain, data: [{path: org/set}]}]
prompts: [Hello]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "foreign.yaml").write_text("{model_name_or_path: org/model, dataset_name: org/set}")
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "old" / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def without(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WINDOWS, *words], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("words", ["--help", *WORKING.values()])
def test_commands_that_start_no_worker(folder: Path, words: str) -> None:
    done = without(folder, *words.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("words", ["run recipe.yaml", "run recipe.yaml --slurm"])
def test_a_run_is_refused_in_words(folder: Path, words: str) -> None:
    done = without(folder, *words.split())
    assert done.returncode == 2
    assert "neither its locks nor its signals; use Linux; macOS, and WSL on Windows, are not tested" in done.stderr


def test_the_pages_name_the_commands_that_work() -> None:
    """The list above, without `--help`, is the one that a reader gets."""
    told = (ROOT / "docs/cluster.md").read_text(encoding="utf-8").partition("On Windows ")[2].partition(" work")[0]
    assert " ".join(told.replace("`", "").replace(" and ", ", ").split()).split(", ") == [*WORKING]
