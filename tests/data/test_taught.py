"""Questions of an evaluation that the measured model was already asked in training, found on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmkit.artifacts.manifest import Manifest, Parent, write_manifest
from llmkit.artifacts.stagefile import StageFile
from llmkit.knowledge.records import Question
from llmkit.recipe.knowledge import QuestionSource
from llmkit.stages.common import Worker
from llmkit.stages.frozen import frozen_questions
from llmkit.stages.taught import taught_to

ASKED = [("Where was Anna Löw born?", "Anna Löw"), ("Who wrote Emma?", "")]
WATCHED = [("Where was Bert Ahl born?", "Bert Ahl")]
NEW = Question("Where was Carl Orm born?", ("Rome",), "Carl Orm")
AGAIN = [
    Question("What does ANNA LOW do?", ("baker",), "Anna  low"),
    Question("What does Anna Löw do for a living?", ("baker",)),
    Question("who wrote Emma", ("Austen",)),
    Question("Who wrote Emma?", ("Austen",), "Jane Austen"),
]


def finished(run: Path, folder: str, kind: str, above: str = "", rows: dict[str, Any] | None = None, **settings: Any):
    name = folder.partition("-")[2]
    parent = Parent(stage=above, fingerprint=above) if above else None
    made = Manifest(stage=name, kind=kind, fingerprint=name, parent=parent, settings=settings)
    write_manifest(run / folder, made)
    for file, asked in (rows or {}).items():
        (run / folder / "data").mkdir(exist_ok=True)
        lines = [json.dumps({"question": q, "answers": ["x"], "entity": e, "refused": False}) + "\n" for q, e in asked]
        (run / folder / "data" / f"{file}.jsonl").write_text("".join(lines))
    return run / folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """sft -> probe, idk -> honest -> dpo."""
    finished(tmp_path, "01-sft", "sft", data=[{"path": "chats.jsonl"}])
    finished(tmp_path, "02-probe", "interrogate", "sft", {"probe": [*ASKED, *WATCHED], "heldout": []})
    rows = {"questions": ASKED, "watched": WATCHED}
    finished(tmp_path, "03-idk", "refusals", "sft", rows, probes=["probe"], watched=0.3)
    finished(tmp_path, "04-honest", "sft", "sft", data=[{"from": "idk"}, {"path": "chats.jsonl"}])
    finished(tmp_path, "05-dpo", "dpo", "honest", data=[{"path": "pairs.jsonl"}])
    return tmp_path


def test_questions_and_entities_that_ancestors_were_trained_on(run: Path) -> None:
    for stage in ("04-honest", "05-dpo"):
        taught = taught_to(run / stage)
        assert taught is not None and taught.stages == ["idk"]
        assert taught.again([NEW, *AGAIN]) == AGAIN
    assert taught_to(run / "01-sft") is None, "the probe asked it, nothing trained it"


def test_what_is_watched_was_not_trained_unless_it_was_read(run: Path) -> None:
    question = Question(WATCHED[0][0], ("Rome",), WATCHED[0][1])
    taught = taught_to(run / "04-honest")
    assert taught is not None and not taught.again([question])
    finished(run, "06-practice", "grpo", "sft", data=[{"from": "idk", "name": "watched"}])
    taught = taught_to(run / "06-practice")
    assert taught is not None and taught.again([question, *AGAIN]) == [question]


def test_rows_that_pass_through_other_stages_count(run: Path) -> None:
    finished(run, "06-best", "best_of_n", "honest", data=[{"from": "probe"}])
    finished(run, "07-rollouts", "rollout", "honest", data=[{"from": "idk", "name": "questions"}])
    finished(run, "08-ranks", "rank", "honest", rollouts="rollouts")
    for folder, source, stages in (("09-a", "best", ["probe"]), ("10-b", "ranks", ["idk"])):
        taught = taught_to(finished(run, folder, "sft", "sft", data=[{"from": source}]))
        assert taught is not None and taught.stages == stages and taught.again(AGAIN) == AGAIN


def test_what_is_not_there_or_was_run_anew_is_not_looked_at(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere" / "04-honest"
    shutil.copytree(run / "04-honest", alone)
    assert taught_to(alone) is None and taught_to(tmp_path / "nowhere") is None
    finished(run, "04-honest", "sft", "sft", data=[])
    assert taught_to(run / "05-dpo") is None
    finished(run, "04-honest", "sft", "sft", data=[{"from": "idk"}])
    assert taught_to(run / "05-dpo") is not None
    anew = Manifest(stage="honest", kind="sft", fingerprint="another", settings={"data": [{"from": "idk"}]})
    write_manifest(run / "04-honest", anew)
    assert taught_to(run / "05-dpo") is None
    (run / "03-idk" / "data" / "questions.jsonl").unlink()
    assert taught_to(run / "04-honest") is None
    (run / "04-honest" / "manifest.json").write_text("{}")
    assert taught_to(run / "04-honest") is None


def frozen(run: Path, questions: list[Question], stage: str) -> tuple[Any, list[str]]:
    """The same for evaluations of honesty, tools and reversal."""
    file = run / "frozen.jsonl"
    rows = [{"question": q.question, "answers": q.answers, "entity": q.entity} for q in questions]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {"kind": "evaluate", "name": "eval", "evals": []}
    worker = Worker(
        StageFile.model_validate(
            {"run": {"name": "t"}, "model": {}, "stage": told, "stage_dir": str(run / "eval"), "fingerprint": "e"}
            | {"input_model": "m", "parent": str(run / stage)}
        )
    )
    return frozen_questions(worker, "honesty", [QuestionSource(path=str(file))], None), worker.warnings


def test_the_evaluation_keeps_them_counts_them_and_warns(run: Path) -> None:
    found, warnings = frozen(run, [NEW, *AGAIN[:2]], "05-dpo")
    assert len(found.questions) == 3 and found.num_taught == 2
    (warning,) = warnings
    assert warning.startswith("honesty: the model was trained on 2 of the 3 questions or on others about the same")
    assert "by rows of 'idk' (such as: What does ANNA LOW do?)" in warning
    found, warnings = frozen(run, [NEW], "05-dpo")
    assert found.num_taught == 0 and not warnings
    found, warnings = frozen(run, AGAIN, "01-sft")
    assert found.num_taught is None and not warnings
