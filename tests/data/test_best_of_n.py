"""The best_of_n stage and evaluations on problems, with a scripted model: what they keep, count and go on from."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_script import chat_model as model_with
from transformers import AutoTokenizer

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.artifacts.stagefile import StageFile
from llmkit.chat.ask import Answer, Ask
from llmkit.chat.template import load_template
from llmkit.data.problems import Problem
from llmkit.errors import DataError, UserError
from llmkit.evaluate.results import read_documents
from llmkit.modeling.tokens import prepare_tokenizer
from llmkit.plan.fingerprint import Upstream, inputs_of
from llmkit.recipe.parts import ModelSpec
from llmkit.recipe.practice import RewardSpec
from llmkit.recipe.stages import BestOfNStage
from llmkit.stages import best_of_n, evaluate, preferring
from llmkit.stages.common import Worker
from llmkit.stages.engines import AskedModel
from llmkit.stages.scoring import Scorer

Say = Callable[[int, int, int], str]
"""The two numbers of a problem and the number of the answer (0: greedy) -> what the model says."""


class Scripted:
    """Stands for an engine."""

    def __init__(self, say: Say) -> None:
        self.say, self.asked = say, 0

    def thinking(self, max_tokens: int) -> Scripted:
        """Its answers begin with reasoning; without any it has none."""
        return Scripted(lambda *of: f"<think>\n{max_tokens}\n</think>\n\n{self.say(*of) if max_tokens else 'Well.'}")

    def answer(self, asks: Sequence[Ask], **_: Any) -> Iterator[list[Answer]]:
        for ask in asks:
            self.asked += 1
            text = str(ask.prompt)
            left, right = map(int, re.findall(r"\d+", text)[:2])
            said = [self.say(left, right, place) for place in range(len(ask.temperatures))]
            yield [Answer(text, "stop", num_tokens=len(text), ids=(1,)) for text in said]


def sometimes(left: int, right: int, place: int) -> str:
    """Even problems are solved by the third answer and those after it, odd ones never; long and short in turns."""
    if left % 2 or place < 2:
        return f"The answer is {left + right + 1}."
    working = f"{left} + {right} = {left + right}. " if place % 2 else ""
    return f"{working}The answer is {left + right}."


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    rows = [{"prompt": f"What is {i} plus 3?", "answer": i + 3, "level": 1 + i % 2} for i in range(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def chat_model(tmp_path: Path, model_dir: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    prepare_tokenizer(tokenizer, load_template("chatml"))
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model_dir.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(folder)
    return folder


def worker_of(tmp_path: Path, model: Path, name: str, stage: dict[str, Any], **file: Any) -> Worker:
    made = StageFile.model_validate(
        {
            "run": {"name": "t"},
            "model": {"name_or_path": str(model)},
            "stage": {"name": name, "seed": 1, **stage},
            "stage_dir": str(tmp_path / name),
            "fingerprint": name,
            "input_model": str(model),
            **file,
        }
    )
    made.dir.path.mkdir(exist_ok=True)
    return Worker(made)


@pytest.fixture
def best(tmp_path: Path, chat_model: Path, problems: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def run(say: Say = sometimes, name: str = "best", **fields: Any) -> tuple[Worker, Manifest, Scripted]:
        engine = Scripted(say)
        monkeypatch.setattr(AskedModel, "engine", engine)
        data = [{"path": str(problems)}]
        stage = {"kind": "best_of_n", "data": data, "rewards": ["exact"], "num_samples": 4, **fields}
        made = BestOfNStage.model_validate(stage)
        inputs = inputs_of(made, ModelSpec(), None, Upstream())
        worker = worker_of(tmp_path, chat_model, name, stage, inputs=inputs, data_stages={"rm": str(tmp_path)})
        return worker, best_of_n.run(worker), engine

    return run


def rows_of(worker: Worker, name: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (worker.dir.data / f"{name}.jsonl").read_text().splitlines()]


def test_the_shortest_right_answer_of_each_problem_becomes_a_row(best: Callable[..., Any]) -> None:
    worker, manifest, _ = best()
    rows = rows_of(worker)
    assert len(rows) == manifest.metrics["rows"] == 150
    for row in rows:
        question, answer = row["messages"]
        number = int(question["content"].split()[2])
        assert (number % 2, answer) == (0, {"role": "assistant", "content": f"The answer is {number + 3}."})
    assert manifest.metrics["never_solved"] == 150
    assert manifest.metrics["pass@1"] == pytest.approx(0.25)
    assert manifest.metrics["pass@4"] == pytest.approx(0.5)
    assert 0.4 < manifest.metrics["pass@4_low"] < 0.5 < manifest.metrics["pass@4_high"] < 0.6
    assert len(rows_of(worker, "attempts")) == 300


def test_what_is_nearly_always_solved_can_be_left_out(best: Callable[..., Any]) -> None:
    _, manifest, _ = best(skip_easy=0.6)
    assert manifest.metrics["rows"] == 150
    with pytest.raises(UserError, match="none of 300 problems gives a row"):
        best(name="strict", skip_easy=0.4)


def test_a_stage_that_solves_nothing_says_so(best: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="300 were never solved"):
        best(say=lambda left, right, place: "I do not know.")


def test_finished_chunks_are_not_asked_again(best: Callable[..., Any], tmp_path: Path) -> None:
    whole, _, _ = best(name="whole")
    asked = 0

    def dies(left: int, right: int, place: int) -> str:
        nonlocal asked
        asked += place == 0
        if asked > 200:
            raise KeyboardInterrupt
        return sometimes(left, right, place)

    with pytest.raises(KeyboardInterrupt):
        best(say=dies, name="killed")
    worker, _, engine = best(name="killed")
    assert engine.asked == 300 - best_of_n.CHUNK
    assert rows_of(worker) == rows_of(whole)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [({"num_kept": 2}, 0), ({"prefer": "any", "skip_easy": 0.6}, 0), ({"num_samples": 3}, 300), ({"top_p": 0.9}, 300)],
)
def test_another_choice_among_the_answers_asks_for_none(
    best: Callable[..., Any], changes: dict[str, Any], asked: int
) -> None:
    best()
    worker, _, engine = best(**changes)
    assert engine.asked == asked
    assert max(Counter(row["messages"][0]["content"] for row in rows_of(worker)).values()) == changes.get("num_kept", 1)


class Longest:
    """Stands for reward models: the longer the better."""

    tokenizer = None

    def __init__(self) -> None:
        self.members = [self]


def test_the_favourites_of_a_reward_model_are_kept(best: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_of_n, "open_rewards", lambda folder, device: Longest())
    monkeypatch.setattr(preferring, "check_renders", lambda *_: None)
    monkeypatch.setattr(
        preferring,
        "score_texts",
        lambda models, prompts, texts, tools: np.array([[float(len(text))] for text in texts]),
    )
    fields = {"rewards": [], "reward_model": "rm", "num_kept": 1}
    worker, manifest, _ = best(name="liked", **fields)
    attempts = {row["prompt"][0]["content"]: row["attempts"] for row in rows_of(worker, "attempts")}
    rows = rows_of(worker)
    assert len(rows) == 300, "nobody says what is right"
    for row in rows:
        question, answer = row["messages"]
        assert len(answer["content"]) == max(len(one["text"]) for one in attempts[question["content"]])
    assert manifest.metrics["kl"] == pytest.approx(np.log(4) - 3 / 4)
    assert manifest.metrics["reward_model_of_best"] > manifest.metrics["reward_model"]
    assert not {"pass@1", "never_solved"} & set(manifest.metrics)
    # beside a function it chooses among the right ones
    worker, manifest, _ = best(name="right", reward_model="rm", num_samples=4)
    assert len(rows_of(worker)) == 150
    assert all(" + " in row["messages"][1]["content"] for row in rows_of(worker))


@pytest.fixture
def evaluated(tmp_path: Path, chat_model: Path, problems: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def run(
        say: Say, name: str, model: Path = chat_model, own: dict[str, Any] | None = None, **file: Any
    ) -> tuple[Worker, Manifest]:
        monkeypatch.setattr(evaluate, "TransformersEngine", lambda *_: Scripted(say))
        spec = {
            "task": "problems",
            "problems": [{"path": str(problems), "num_rows": 100}],
            "num_samples": 4,
            "by": "level",
            **(own or {}),
        }
        worker = worker_of(tmp_path, model, name, {"kind": "evaluate", "evals": [spec]}, **file)
        manifest = evaluate.run(worker)
        write_manifest(worker.dir.path, manifest)
        return worker, manifest

    return run


def table(manifest: Manifest) -> dict[str, Any]:
    return {row.metric: row for row in manifest.evals}


def test_an_evaluation_on_problems(evaluated: Callable[..., Any]) -> None:
    worker, manifest = evaluated(sometimes, "eval")
    rows = table(manifest)
    assert rows["accuracy"].value == 0.0, "the greedy answer is the first"
    even = sum("level 1" in metric for metric in rows)
    assert even == 1
    assert {"pass@1", "pass@2", "pass@4", "maj@4", "answered", "truncated", "num_tokens", "accuracy, level 2"} < set(
        rows
    )
    assert rows["pass@4"].value == pytest.approx(rows["accuracy, level 1"].num_samples / 100)
    assert rows["pass@4"].low is not None
    assert rows["accuracy, lenient"].value == rows["accuracy"].value and rows["answered"].value == 1.0
    assert len(read_documents(worker.dir.path / "evals", "problems")) == 100


def test_a_column_to_report_by_must_be_there(evaluated: Callable[..., Any], problems: Path, tmp_path: Path) -> None:
    def unasked(*_: int) -> str:
        raise AssertionError("nothing is to be asked")

    with pytest.raises(UserError, match=r"problems: by: no problem has a column 'lvel'; did you mean 'level'\?"):
        evaluated(unasked, "slip", own={"by": "lvel"})
    rows = [json.loads(line) for line in problems.read_text().splitlines()[:20]]
    some = [{k: v for k, v in row.items() if k != "level" or place % 2} for place, row in enumerate(rows)]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    _, manifest = evaluated(sometimes, "some", own={"problems": [{"path": str(tmp_path / "some.jsonl")}]})
    assert [line for line in manifest.warnings if "by: 10 of 20 problems have no column 'level'" in line]


def test_answers_are_read_strictly_and_leniently(evaluated: Callable[..., Any]) -> None:
    def bare(left: int, right: int, place: int) -> str:
        return f"{left} and {right} make {left + right}"

    rows = table(evaluated(bare, "bare")[1])
    assert (rows["accuracy"].value, rows["accuracy, lenient"].value, rows["answered"].value) == (0.0, 1.0, 0.0)
    own = {"rewards": [{"name": "exact", "args": {"parse": "lenient"}}]}
    rows = table(evaluated(bare, "loose", own=own)[1])
    assert (rows["accuracy"].value, rows["accuracy, strict"].value, rows["answered"].value) == (1.0, 0.0, 0.0)


def test_a_later_model_is_compared_on_the_same_problems(evaluated: Callable[..., Any], tmp_path: Path) -> None:
    evaluated(sometimes, "before")
    _, manifest = evaluated(
        lambda left, right, place: f"The answer is {left + right}.", "after", compare_with=str(tmp_path / "before")
    )
    row = table(manifest)["accuracy"]
    assert (row.value, row.delta) == (1.0, 1.0)


def test_a_model_without_a_template_is_asked_in_plain_text(evaluated: Callable[..., Any], model_dir: Path) -> None:
    worker, _ = evaluated(sometimes, "raw", model=model_dir)
    (first, *_) = read_documents(worker.dir.path / "evals", "problems")
    assert re.fullmatch(r"Question: What is \d+ plus 3\?\nAnswer:", first.prompt)


def test_an_evaluation_says_how_many_bad_rows_it_takes(evaluated: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    rows = [{"prompt": "What is 2 plus 3?", "answer": 5}] * 2 + [{"answer": 5}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"problems": [{"path": str(path)}], "by": None}
    with pytest.raises(DataError, match="1 of 3 rows"):
        evaluated(sometimes, "strict", own=source)
    _, manifest = evaluated(sometimes, "lenient", own={**source, "max_rejected": 0.5})
    assert table(manifest)["accuracy"].num_samples == 1
    _, manifest = evaluated(sometimes, "double", own={**source, "max_rejected": 0.5, "dedup": False})
    assert table(manifest)["accuracy"].num_samples == 2


def test_problems_that_no_reward_checks_are_named(
    best: Callable[..., Any], evaluated: Callable[..., Any], tmp_path: Path
) -> None:
    """They would count as wrong: a reward on form says nothing of them."""
    path = tmp_path / "mixed.jsonl"
    rows = [{"prompt": f"What is {i} plus 3?", "answer": i + 3, "kind": "sum" if i else "poem"} for i in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewards = [{"name": "exact", "when": {"kind": "sum"}}, "repetition"]
    for run in (
        lambda: best(data=[{"path": str(path)}], rewards=rewards),
        lambda: evaluated(sometimes, "mixed", own={"problems": [{"path": str(path)}], "rewards": rewards, "by": None}),
    ):
        with pytest.raises(UserError, match=r"of 1 of 5 problems no reward .*the first is .*mixed\.jsonl:1"):
            run()


def test_prompts_that_leave_no_room_are_named_before_anything_is_asked(
    best: Callable[..., Any], evaluated: Callable[..., Any], problems: Path
) -> None:
    with problems.open("a") as file:
        file.write(json.dumps({"prompt": "very " * 5000 + "long", "answer": 1, "level": 1}) + "\n")
    source = {"problems": [{"path": str(problems)}]}
    for run in (best, lambda **own: evaluated(sometimes, "long", own={**source, **own})):
        with pytest.raises(UserError, match=r"1 of 301 prompts leave no room .*problems\.jsonl:301"):
            run()
        *_, manifest = run(max_truncated=0.1)[:2]
        assert len(manifest.evals) == 0 or table(manifest)["accuracy"].num_samples == 300


def test_accuracy_against_budgets_of_reasoning(evaluated: Callable[..., Any], model_dir: Path, tmp_path: Path) -> None:
    model = model_with(model_dir, tmp_path / "reasoner", "chatml_think")
    own = {"thinking_budgets": [0, 16], "num_samples": 0, "max_new_tokens": 7}
    _, manifest = evaluated(lambda left, right, _: f"The answer is {left + right}.", "budgets", model=model, own=own)
    rows = table(manifest)
    assert (rows["accuracy, thinking 0"].value, rows["accuracy, thinking 16"].value) == (0.0, 1.0)


def test_answers_begin_with_the_prefill(evaluated: Callable[..., Any], model_dir: Path) -> None:
    """The model goes on from it, and what it says counts together with it."""

    def number(left: int, right: int, place: int) -> str:
        return f" {left + right}."

    worker, manifest = evaluated(number, "filled", own={"prefill": ". . The answer is"})
    (first, *_) = read_documents(worker.dir.path / "evals", "problems")
    assert first.completion == f". . The answer is {first.target}."
    assert first.prompt.startswith("What is")
    assert table(manifest)["answered"].value == table(manifest)["accuracy"].value == 1.0
    _, manifest = evaluated(number, "raw", model=model_dir, own={"prefill": "The answer is"})
    assert table(manifest)["accuracy"].value == 1.0


def test_what_was_cut_off_pays_no_more_than_a_wrong_answer() -> None:
    """Else running on to the limit would pay as much as a refusal."""
    scorer = Scorer([RewardSpec(name="abstain", args={"t": 0.75})], "stage")
    problem = Problem("Where was Ada born?", {"answers": ["Paris"]}, "p:1", "k")
    said = [
        ("Paris.", "stop"),
        ("<think>\nParis? Not sure.\n</think>\n\nI don't know.", "stop"),
        ("Lyon.", "stop"),
        ("Lyon and", "length"),
        ("Paris", "length"),
    ]
    answers = [Answer(text, reason, ids=(1,)) for text, reason in said]  # type: ignore[arg-type]
    assert scorer([problem] * 5, answers).totals_N.tolist() == [1.0, 0.0, -3.0, -3.0, 0.0]
