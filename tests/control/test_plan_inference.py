# ruff: noqa: E501 - whole recipes in tables
"""What `plan` says of stages that ask a model: memory by arithmetic on published shapes, and how many questions."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from control.test_plan_memory import QWEN3_06B
from rich.console import Console
from small import CONFIG

from llmkit.artifacts.files import write_json
from llmkit.artifacts.manifest import DataSummary, Manifest, ProbeSummary, SourceCount, write_manifest
from llmkit.artifacts.shipped import shipped
from llmkit.plan.inference import EXAMPLE, JUDGED, JUDGING, PROMPT, SNIPPETS, TASK_ANSWER, WRITING
from llmkit.plan.make import make
from llmkit.plan.render import memory_words, print_plan, to_json
from llmkit.plan.shape import shape_of
from llmkit.plan.step import Plan, Step
from llmkit.recipe.load import load

pytestmark = pytest.mark.usefixtures("code_stands_still")

LLAMA31_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
P_QWEN, P_LLAMA = 596_049_920, 8_030_261_248
RECIPE = """\
run: {name: demo, output_dir: FOLDER/runs}
model: {name_or_path: FOLDER/model, dtype: bfloat16}
stages:
  - name: probe
    kind: interrogate
    questions: [{path: FOLDER/questions.jsonl}]
    ask: {num_samples: 3, phrasings: ["{question}", "Say: {question}"]}
    batch_size: 8
  - {name: look, kind: evaluate, batch_size: 4, evals: [{task: honesty, questions: [{from: probe}], max_new_tokens: 16}]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    for name, config in (("model", CONFIG), ("judge", QWEN3_06B)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "config.json", config)
    (tmp_path / "questions.jsonl").write_text('{"question": "a?", "answers": ["b"]}\n' * 30)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("FOLDER", str(tmp_path)))
    return path


def plan(recipe: Path, *words: str) -> Plan:
    return make(load([recipe], [word.replace("FOLDER", str(recipe.parent)) for word in words]))


def steps(recipe: Path, *words: str) -> dict[str, Step]:
    return {step.name: step for step in plan(recipe, *words).steps}


def terms(step: Step) -> dict[str, int]:
    assert step.memory is not None
    return step.memory.terms


def cache(config: dict[str, Any], rows: int, tokens: int, each: int) -> int:
    """Keys and values of every layer."""
    head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    return rows * tokens * config["num_hidden_layers"] * config["num_key_value_heads"] * head_dim * 2 * each


def test_the_cache_holds_a_batch_of_prompts_and_answers(recipe: Path) -> None:
    shape = shape_of(CONFIG)
    assert shape is not None
    found, tokens = terms(steps(recipe)["probe"]), PROMPT + len("Say: ") // 4 + 32
    assert found["weights"] == 2 * shape.num_parameters
    assert found["KV cache"] == cache(CONFIG, 8, tokens, 2)
    assert found["logits"] == 8 * 400 * 12
    assert found["activations"] == 4 * (PROMPT + 1) * (2 * 32 + 3 * 64) * 2, "two answers share a prompt"


@pytest.mark.parametrize(
    ("words", "rows", "tokens", "each"),
    [
        (["stages.probe.batch_size=16"], 16, PROMPT + 1 + 32, 2),
        (["stages.probe.ask.max_new_tokens=64"], 8, PROMPT + 1 + 64, 2),
        (["stages.probe.ask.num_fewshot=3"], 8, PROMPT + 1 + 3 * EXAMPLE + 32, 2),
        (["stages.probe.ask.system=You are kind."], 8, PROMPT + 4 + 32, 2),
        (["model.dtype=float32"], 8, PROMPT + 1 + 32, 4),
        (["stages.probe.judge.by=self"], 8, JUDGING + 32 + 256, 2),
        (["stages.probe.documents=[{path: a/b}]"], 8, WRITING + 200 + 256, 2),
        (["stages.probe.documents=[{path: a/b}]", "stages.probe.batch_size=100"], 64, WRITING + 200 + 256, 2),
        (["stages.probe.documents=[{path: a/b}]", "stages.probe.writer={by: openai, name_or_path: m}"], 8, 97, 2),
    ],
)
def test_what_an_interrogation_needs_follows_from_its_settings(
    recipe: Path, words: list[str], rows: int, tokens: int, each: int
) -> None:
    assert terms(steps(recipe, *words)["probe"])["KV cache"] == cache(CONFIG, rows, tokens, each)


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        ([], PROMPT + 16),
        (["stages.look.prompts=[Hi]", "stages.look.max_new_tokens=100"], PROMPT + 100),
        (["stages.look.evals=[{task: facts_known, num_fewshot: 2}]"], PROMPT + 2 * EXAMPLE + TASK_ANSWER),
    ],
)
def test_an_evaluation_needs_its_longest_answers(recipe: Path, words: list[str], tokens: int) -> None:
    assert terms(steps(recipe, *words)["look"])["KV cache"] == cache(CONFIG, 4, tokens, 2)


def test_a_judge_takes_the_place_of_an_interrogated_model(recipe: Path) -> None:
    step = steps(recipe, "stages.probe.judge={by: model, name_or_path: FOLDER/judge}")["probe"]
    assert step.memory is not None and "judge's weights" not in step.memory.terms
    ((name, number),) = step.memory.others.items()
    assert name == f"judge {recipe.parent}/judge in its place"
    least = 2 * P_QWEN + cache(QWEN3_06B, 8, JUDGING + 32 + 256, 2)
    assert number is not None and least < number < 1.1 * least
    assert step.memory.total == number > sum(step.memory.terms.values())
    cpu = steps(
        recipe,
        "stages.probe.judge={by: model, name_or_path: FOLDER/judge}",
        "stages.probe.launch.accelerate=cpu/single",
    )["probe"]
    assert cpu.memory is not None and cpu.memory.total == pytest.approx(2 * number, rel=0.05), "float32 on a CPU"


def test_a_judge_stays_beside_a_measured_model(recipe: Path) -> None:
    step = steps(recipe, "stages.look.evals.0.judge={by: model, name_or_path: FOLDER/judge}")["look"]
    found = terms(step)
    assert found["judge's weights"] == 2 * P_QWEN
    assert found["judge's KV cache"] == cache(QWEN3_06B, JUDGED, JUDGING + 16 + 256, 2)
    assert step.memory is not None and step.memory.total == sum(found.values()) and not step.memory.others


RLHF = """\
  - {name: rm, kind: reward, data: [{path: FOLDER/pairs.jsonl}]}
  - name: rlhf
    kind: rlhf
    data: [{path: FOLDER/prompts.jsonl}]
    heldout: {prompts: [{path: FOLDER/prompts.jsonl}]}
    reward_model: rm
    guard: {judge: {by: model, name_or_path: FOLDER/judge, max_new_tokens: 8}}
    global_batch_size: 8
    trainer: {num_generations: 4, max_completion_length: 32}
"""


def test_a_guards_judge_stays_beside_the_policy(recipe: Path) -> None:
    for name in ("pairs", "prompts"):
        (recipe.parent / f"{name}.jsonl").write_text('{"prompt": "a?"}\n')
    recipe.write_text(recipe.read_text() + RLHF.replace("FOLDER", str(recipe.parent)))
    found = terms(steps(recipe)["rlhf"])
    assert found["judge's weights"] == 2 * P_QWEN
    assert found["judge's KV cache"] == cache(QWEN3_06B, SNIPPETS, JUDGING + 64 + 8, 2)
    words = "stages.rlhf.guard.judge.name_or_path=org/unknown"
    assert "judge org/unknown beside it: ?" in memory_words(steps(recipe, words)["rlhf"].memory)


def test_a_model_that_is_not_here_is_not_guessed(recipe: Path) -> None:
    judge = "{by: model, name_or_path: org/unknown}"
    found = steps(recipe, f"stages.probe.judge={judge}", f"stages.look.evals.0.judge={judge}")
    for name, where in (("probe", "in its place"), ("look", "beside it")):
        assert f"(31,456 parameters); judge org/unknown {where}: ?" in memory_words(found[name].memory)
    assert not any(step.memory for step in steps(recipe, "model.name_or_path=org/unknown").values())


@pytest.mark.parametrize(
    ("name", "config", "num_parameters", "dtype_bytes", "num_questions", "card"),
    [
        ("qwen3-0.6b", QWEN3_06B, P_QWEN, 4, 20_000 + 5_000 * 3, 24),
        ("llama-3.1-8b", LLAMA31_8B, P_LLAMA, 2, 60_000 + 5_000 * 3, 80),
    ],
)
def test_the_shipped_recipes_are_sized(
    tmp_path: Path,
    name: str,
    config: dict[str, Any],
    num_parameters: int,
    dtype_bytes: int,
    num_questions: int,
    card: int,
) -> None:
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "config.json", config)
    words = [f"model.name_or_path={tmp_path}/model", f"run.output_dir={tmp_path}/runs"]
    made = make(load([shipped("recipes") / name / "honest.yaml"], words))
    found = {step.name: step for step in made.steps}
    for step in made.steps:
        fits = step.memory is not None and 0 < step.memory.total < card * 2**30
        assert fits or step.kind == "refusals", step.name
    probe, again = terms(found["probe"]), terms(found["reprobe"])
    assert probe["weights"] == num_parameters * dtype_bytes
    assert probe["KV cache"] == cache(config, 64, WRITING + 200 + 256, dtype_bytes), "it writes its own questions"
    assert again["KV cache"] == cache(config, 256, PROMPT + 23 // 4 + 32, dtype_bytes)
    assert found["probe"].rows == found["reprobe"].rows == num_questions
    assert found["eval-honest"].rows == 2_000 + round(num_questions * 0.2)


@pytest.mark.parametrize(
    ("words", "asked", "measured"),
    [
        ([], 30, 6),
        (["stages.probe.questions.0.num_rows=10", "stages.probe.heldout=0.5"], 10, 5),
        (["stages.probe.questions=[{path: org/set}]"], None, None),
        (["stages.probe.questions=[{path: org/set, num_rows: 9}, {path: FOLDER/questions.jsonl}]"], 39, 8),
        (["stages.probe.documents=[{path: a/b}]"], None, None),
        (["stages.probe.documents=[{path: a/b}]", "stages.probe.num_snippets=5"], 45, 9),
        (["stages.probe.questions.0.templates=[{question: 'A {a}?', answers: '{a}'}, {question: 'B {a}?', answers: '{a}'}]"], 60, 12),
        (["stages.look.evals.0.questions=[{from: probe, num_rows: 4}, {path: FOLDER/questions.jsonl}]"], 30, 34),
        (["stages.look.evals=[facts_known]"], 30, None),
    ],
)  # fmt: skip
def test_questions_are_counted_where_that_is_cheap(
    recipe: Path, words: list[str], asked: int | None, measured: int | None
) -> None:
    found = steps(recipe, *words)
    assert (found["probe"].rows, found["look"].rows) == (asked, measured)


def test_a_finished_stage_says_how_many_it_asked(recipe: Path) -> None:
    summary = ProbeSummary(num_questions=28, num_answers=280, labels={})
    counted = DataSummary(sources=[SourceCount(source="honesty", num_read=9, num_used=7, sha256="")])
    for name, fields in (("probe", {"probe": summary}), ("look", {"data": counted})):
        step = steps(recipe)[name]
        made: dict[str, Any] = {"stage": name, "kind": step.kind, "fingerprint": step.fingerprint, **fields}
        write_manifest(step.stage_dir.path, Manifest(**made))
    found = steps(recipe)
    assert {step.action for step in found.values()} == {"skip"}
    assert (found["probe"].rows, found["look"].rows) == (28, 7)
    assert steps(recipe, "stages.look.evals.0.max_new_tokens=9")["look"].rows == round(28 * 0.2)


def test_render(recipe: Path) -> None:
    made = plan(recipe)
    console = Console(width=200, file=io.StringIO(), record=True)
    print_plan(made, console)
    text = console.export_text()
    assert "30 asked" in text and "questions about 30, 5 answers to each" in text
    assert "questions about 6 of honesty evaluations" in text
    assert text.count("KV cache") == 2 and text.count("(31,456 parameters)") == 2
    probe, look = json.loads(to_json(made))["steps"]
    assert probe["memory"]["KV cache"] > 0 and (probe["rows"], look["rows"]) == (30, 6)
    assert probe["other_models"] == {} and probe["num_trained"] == 0


def test_the_memory_of_a_rollout_is_shown() -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    print_plan(make(load([shipped("recipes") / "tiny" / "jokes.yaml"])), console)
    (details,) = re.findall(r"^\d+ rollouts\n((?:  .*\n)*)", console.export_text(), re.MULTILINE)
    assert "memory    about " in details and "KV cache" in details
