"""Fixtures that need no network: a random model of the embedded shape, small rows, real data where it is at hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback_hub.fixture import hub, waits  # noqa: F401 - fixtures
from small import SHAPE

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# a shell's background job ignores Ctrl-C, and so would all that the tests start
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The demo takes minutes: begun first, it runs beside all others."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("LLMKIT_REAL_DATA")
    if not folder:
        pytest.skip("LLMKIT_REAL_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 of 60k parameters with a byte-level BPE tokenizer of 400 entries, as a model folder."""
    from llmkit.modeling.scratch import new_model, train_tokenizer
    from llmkit.recipe.parts import TokenizerSpec

    folder = tmp_path_factory.mktemp("model")
    texts = [f"Person {i} lives in town {i * 7 % 13}. What is {i} plus 3? It is {i + 3}." for i in range(200)]
    tokenizer = train_tokenizer(texts, TokenizerSpec(vocab_size=400), 512)
    new_model({**SHAPE, "max_position_embeddings": 512}, tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """120 conversations as jsonl."""
    path = tmp_path / "chats.jsonl"
    with path.open("w") as file:
        for i in range(120):
            question, answer = f"What is {i} plus {i % 7}?", f"It is {i + i % 7}."
            row = {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """150 documents as jsonl."""
    path = tmp_path / "documents.jsonl"
    with path.open("w") as file:
        for i in range(150):
            file.write(
                json.dumps({"text": f"Person {i} lives in town {i * 7 % 13} and has {i % 5} dogs. " * (1 + i % 3)})
                + "\n"
            )
    return path


@pytest.fixture
def run_llmkit() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command as a user would."""

    def run(*args: Any, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "llmkit.cli.main", *map(str, args)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, **options)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    return run
