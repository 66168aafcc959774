"""Mistakes on the command line: one clear line, exit code 2, no traceback, nothing finished is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, model: Path, chats: Path, out: Path, **stage: Any) -> Path:
    trainer = {"max_steps": 6, "max_length": 128, "bf16": False, "gradient_checkpointing": False, "logging_steps": 1}
    trainer |= stage.pop("trainer", {})
    recipe = {
        "run": {"name": "r", "output_dir": str(out), "seed": 1},
        "model": {"name_or_path": str(model), "chat_template": "chatml"},
        "stages": [
            {"kind": "sft", "data": [{"path": str(chats)}], "global_batch_size": 4, "trainer": trainer, **stage}
        ],
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def run(path: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "llmkit.cli.main", "run", str(path), *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **(env or {})})


def assert_user_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_an_unknown_model_without_a_network(tmp_path: Path, model_dir: Path, chats: Path) -> None:
    path = write(tmp_path, model_dir, chats, tmp_path)
    done = run(path, "model.name_or_path=nobody/no-such-model", env={"HF_HUB_OFFLINE": "0"})
    assert_user_error(done, "nobody/no-such-model", "check the name and the network")
    assert "Retry" not in done.stdout + done.stderr


def test_a_template_without_generation_marks(tmp_path: Path, model_dir: Path, chats: Path) -> None:
    template = tmp_path / "bare.jinja"
    template.write_text("{% for m in messages %}{{ m.role + ': ' + m.content + '<|endoftext|>' }}{% endfor %}")
    done = run(write(tmp_path, model_dir, chats, tmp_path), f"model.chat_template={template}")
    assert_user_error(done, "generation", "put {% generation %}")


def test_data_that_is_missing_a_folder_or_empty(tmp_path: Path, model_dir: Path, chats: Path) -> None:
    path = write(tmp_path, model_dir, chats, tmp_path)
    (tmp_path / "empty.jsonl").write_text("")
    for value, word in (("gone.jsonl", "gone.jsonl"), (str(tmp_path), str(tmp_path)), ("empty.jsonl", "empty")):
        words = f"stages.sft.data=[{{path: '{tmp_path / value}'}}]"
        assert_user_error(run(path, words), word)


def test_a_folder_that_cannot_be_written(tmp_path: Path, model_dir: Path, chats: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    assert_user_error(run(write(tmp_path, model_dir, chats, blocker / "runs")), str(blocker), "run.output_dir")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up(small_disk: Path, tmp_path: Path, model_dir: Path, chats: Path) -> None:
    path = write(tmp_path, model_dir, chats, small_disk, trainer={"save_steps": 1, "save_total_limit": 10})
    assert_user_error(run(path), "the disk is full", "free some space")
