"""Every shipped task loads, scores its own answers as right, and runs in an unmodified lm_eval."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmkit.artifacts.shipped import shipped
from llmkit.evaluate.tasks import load_task
from llmkit.recipe.schema import EvalSpec

EVALS = shipped("evals")
TASKS = sorted(path.stem for path in EVALS.rglob("*.yaml"))


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_the_reference_answers_score_full_marks(name, raw):
    [task] = load_task(EvalSpec(task=name), raw=raw, seed=0)["tasks"].values()
    docs = list(task.eval_docs)
    assert len(docs) >= 50
    assert len({json.dumps(doc, sort_keys=True) for doc in docs}) == len(docs)
    scores = [task.process_results(doc, [" " + task.doc_to_target(doc)]) for doc in docs]
    main_metric = next(iter(scores[0]))
    assert sum(score[main_metric] for score in scores) == len(docs)
    wrong = [task.process_results(doc, [""]) for doc in docs]
    assert sum(score[main_metric] for score in wrong) == 0
    assert task.doc_to_text(docs[0]).startswith("Question:") == raw


def test_every_task_is_described():
    readme = (EVALS / "README.md").read_text(encoding="utf-8")
    assert [name for name in TASKS if f"`{name}`" not in readme] == []


@pytest.mark.slow
def test_an_unmodified_lm_eval_runs_a_task_from_any_folder(model_dir, tmp_path):
    arguments = [
        *("--include_path", str(EVALS), "--tasks", "facts_known", "--limit", "3", "--batch_size", "3"),
        *(
            "--model",
            "hf",
            "--model_args",
            f"pretrained={model_dir}",
            "--device",
            "cpu",
            "--output_path",
            str(tmp_path),
        ),
    ]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    argv = [sys.executable, "-m", "lm_eval", "run", *arguments]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    [file] = Path(tmp_path).rglob("results_*.json")
    assert json.loads(file.read_text())["results"]["facts_known"]["accuracy,none"] is not None
