"""lm-eval tasks on a tiny random model, in this process."""

import json
from pathlib import Path

import pytest
from helpers_tasks import PICK
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit.artifacts.manifest import read_manifest
from llmkit.artifacts.stagefile import StageFile, write_stage_file
from llmkit.chat.template import apply_template, load_template
from llmkit.errors import DataError
from llmkit.evaluate.harness import prepare_tasks, run_tasks
from llmkit.evaluate.model import EvalModel
from llmkit.evaluate.results import read_documents
from llmkit.recipe.schema import EvalSpec
from llmkit.stages.common import Worker
from llmkit.stages.evaluate import run

TASKS = {
    "shout": """
task: shout
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 6, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0, raw: {doc_to_text: "Raw: {{question}}"}}
""",
    "pick": PICK.replace("me/on-the-hub", "json\ndataset_kwargs: {data_files: {test: DATA}}"),
    "ppl": """
task: ppl
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"question": f"Who lives in town {i}?", "answer": f"Person {i}"} for i in range(7)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(text.replace("DATA", str(folder / "data.jsonl")))
    return folder


@pytest.fixture(scope="module")
def loaded(model_dir):
    return AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def chat_loaded(model_dir):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    apply_template(tokenizer, load_template("chatml"))
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model, tokenizer


def evaluate(loaded, *specs: EvalSpec, chat: bool = False, **options):
    options = {"batch_size": 4, "seed": 0, **options}
    tasks = prepare_tasks(list(specs), use_chat_template=chat, seed=options["seed"])
    return run_tasks(*loaded, tasks, **options)


def spec(task: str, folder: Path, **options) -> EvalSpec:
    return EvalSpec(task=task, include_path=str(folder), **options)


def test_every_kind_of_task_gives_values_and_documents(loaded, folder, tmp_path):
    seen: list[tuple[int, int]] = []
    specs = [spec("shout", folder), spec("pick", folder, limit=5), spec("ppl", folder)]
    shout, pick, ppl = evaluate(loaded, *specs, out_dir=tmp_path, progress=lambda *at: seen.append(at))
    assert [(r.task, m.name, m.num_samples) for r in (shout, pick, ppl) for m in r.metrics] == [
        ("shout", "exact_match", 7),
        ("pick", "acc", 5),
        ("ppl", "byte_perplexity", 7),
    ]
    assert ppl.metrics[0].aggregate is not None and ppl.metrics[0].value > 1
    assert pick.documents[0].completion in ("yes", "no")
    assert read_documents(tmp_path, "shout") == shout.documents
    assert seen[0] == (0, 19) and seen[-1] == (19, 19)


def test_generation_is_that_of_lm_eval_itself(loaded, folder, monkeypatch):
    ours = evaluate(loaded, spec("shout", folder))[0].documents
    monkeypatch.delattr(EvalModel, "generate_until")
    theirs = evaluate(loaded, spec("shout", folder))[0].documents
    assert [d.completion for d in ours] == [d.completion for d in theirs]
    assert any(d.completion for d in ours)


def test_a_base_model_gets_the_raw_prompt_and_a_chat_model_its_template(chat_loaded, folder):
    def prompt(chat: bool, raw: bool) -> str:
        [result] = evaluate(chat_loaded, spec("shout", folder, limit=1, raw=raw), chat=chat)
        return result.documents[0].prompt

    assert prompt(chat=False, raw=False) == "Raw: Who lives in town 0?"
    assert prompt(chat=True, raw=True) == "Raw: Who lives in town 0?"
    templated = "<|im_start|>user\nWho lives in town 0?<|im_end|>\n<|im_start|>assistant\n"
    assert prompt(chat=True, raw=False) == templated


def test_a_misspelt_task_is_refused_with_the_nearest_name(loaded, folder, monkeypatch):
    monkeypatch.setattr(
        "llmkit.evaluate.tasks._all_of_lm_eval", lambda: type("M", (), {"task_index": {}, "all_tasks": []})
    )
    with pytest.raises(DataError, match=r"evals: facts_knwon: no task of this name.*did you mean facts_known"):
        evaluate(loaded, EvalSpec(task="facts_knwon"))


def test_a_broken_task_file_is_named(loaded, tmp_path):
    (tmp_path / "mine.yaml").write_text("task: mine\n  doc_to_text: [\n")
    with pytest.raises(DataError, match=r"mine\.yaml: cannot be read as a task"):
        evaluate(loaded, spec("mine", tmp_path))


def test_a_task_with_an_unknown_field_is_refused(loaded, folder, tmp_path):
    (tmp_path / "mine.yaml").write_text((folder / "shout.yaml").read_text().replace("test_split", "tset_split"))
    with pytest.raises(DataError, match=r"task shout: it cannot be built .*tset_split"):
        evaluate(loaded, spec("shout", tmp_path))


def test_data_on_the_hub_without_a_network_is_one_clear_line(loaded, monkeypatch, tmp_path):
    monkeypatch.setattr("llmkit.evaluate.tasks._hub_answers", lambda: False)
    with pytest.raises(DataError, match=r"task gsm8k: its data cannot be had .*check the network"):
        evaluate(loaded, EvalSpec(task="gsm8k"))


def test_a_task_named_twice_is_refused(loaded, folder):
    with pytest.raises(DataError, match="evals: pick: is evaluated twice"):
        evaluate(loaded, spec("pick", folder), spec("pick", folder, limit=2))


def test_a_prompt_that_is_too_long_is_counted(loaded, folder, monkeypatch):
    monkeypatch.setattr(EvalModel, "max_length", 12)
    [result] = evaluate(loaded, spec("shout", folder))
    assert result.warnings == ["shout: 7 prompts lost their beginning to the context"]


def stage_file(tmp_path: Path, model_dir: Path, folder: Path, name: str, compare: Path | None) -> StageFile:
    stage = {
        "kind": "evaluate",
        "name": name,
        "seed": 1,
        "evals": [{"task": "pick", "include_path": str(folder)}],
        "prompts": ["What is 2 plus 3?"],
        "max_new_tokens": 5,
    }
    file = StageFile.model_validate(
        {
            "run": {"name": "t"},
            "model": {"name_or_path": str(model_dir)},
            "stage": stage,
            "stage_dir": str(tmp_path / name),
            "fingerprint": name,
            "input_model": str(model_dir),
            "compare_with": str(compare) if compare else None,
        }
    )
    write_stage_file(file)
    return file


def test_the_stage_measures_answers_and_compares(tmp_path, model_dir, folder):
    first = stage_file(tmp_path, model_dir, folder, "eval-base", None)
    assert run(Worker(first)).evals[0].delta is None
    manifest = run(Worker(stage_file(tmp_path, model_dir, folder, "again", Path(first.stage_dir))))
    [row] = manifest.evals
    assert (row.stage, row.task, row.metric, row.num_samples) == ("base", "pick", "acc", 7)
    assert (row.delta, row.delta_from) == (0.0, "base")
    [sample] = manifest.samples
    assert sample.prompt == "What is 2 plus 3?" and sample.completion
    assert manifest.versions["lm_eval"]
    phases = {json.loads(line)["phase"] for line in (tmp_path / "again" / "metrics.jsonl").read_text().splitlines()}
    assert {"generate", "evaluate"} <= phases
    assert read_manifest(tmp_path / "again") is None  # the worker's entry writes it, last
