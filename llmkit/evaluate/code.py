"""Tasks that run programs a model wrote: only with consent, and in llmkit's sandbox."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lm_eval.tasks._index import Entry, Kind

from llmkit.errors import DataError
from llmkit.evaluate.passes import pass_at_k
from llmkit.sandbox.program import run

TIMEOUT = 3.0
"""CPU seconds of a program, as in HumanEval's own harness."""
MEMORY = 2**30
"""Bytes."""


def unsafe(task: str) -> DataError:
    cure = "say 'allow_code_execution: true' (--allow-code-execution) to have it run in llmkit's sandbox"
    return DataError(f"task {task}", "it runs programs that the model wrote", cure)


def refuse_unsafe(entry: Entry, *, allowed: bool) -> None:
    """Before anything of the task is loaded; what a group brings is seen after. Raises DataError."""
    if entry.kind is Kind.TASK and (entry.cfg or {}).get("unsafe_code"):
        refuse_runner(entry.name, entry, allowed=allowed)


def refuse_runner(task: str, entry: Entry | None, *, allowed: bool) -> None:
    """Of a task that runs programs. Raises DataError without consent, and for a task with a runner of its own, which no
    sandbox holds. Args: entry: where the task comes from, if a file describes it."""
    if not allowed:
        raise unsafe(task)
    files = entry.yaml_path.parent.glob("*.py") if entry and entry.yaml_path else []
    if not any("code_eval" in file.read_text(encoding="utf-8") for file in files):
        what = "it runs programs that the model wrote in a way of its own, outside of llmkit's sandbox"
        raise DataError(f"task {task}", what, "run it with lm_eval itself, in a virtual machine")


@contextmanager
def sandboxed(wanted: bool) -> Iterator[None]:
    """The metric `code_eval`, which tasks load from the Hub, becomes one that runs programs in the sandbox."""
    if not wanted:
        yield
        return
    import evaluate  # half a second, which other tasks save

    load = evaluate.load

    def load_ours(path: str, *args: Any, **kwargs: Any) -> Any:
        return CodeEval() if Path(path).name == "code_eval" else load(path, *args, **kwargs)

    with patch.object(evaluate, "load", load_ours):
        yield


class CodeEval:
    """`code_eval` of the `evaluate` library: pass@k of programs followed by their tests."""

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1,), **_: Any
    ) -> tuple[dict[str, float], dict[int, list[bool]]]:
        """pass@k by name, a mean over the problems, and for each problem which candidates passed.

        Raises UserError where this machine can make no sandbox.
        """
        passed = {
            place: [passes(candidate, test) for candidate in candidates]
            for place, (test, candidates) in enumerate(zip(references, predictions, strict=True))
        }
        scores = {}
        for wanted in k:
            found = [pass_at_k(len(own), sum(own), wanted) for own in passed.values() if len(own) >= wanted]
            if found:
                scores[f"pass@{wanted}"] = sum(found) / len(found)
        return scores, passed


def passes(program: str, test: str) -> bool:
    """Whether a program and then its test run without an error. A program that ends itself has not passed."""
    token = secrets.token_hex(16)
    job = {"code": program, "steps": [["run", test]], "token": token}
    return f"{token} 0 True" in run(job, "", timeout=TIMEOUT, memory=MEMORY).output
