"""`llmkit eval` in this process, on random models and small tasks."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, refused
from helpers_tasks import PICK
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit.chat.template import apply_template, load_template
from llmkit.errors import RunError
from llmkit.evaluate import answers as kept
from llmkit.evaluate.answers import Answers, identity_of, key_of, remembered
from llmkit.evaluate.model import EvalModel
from llmkit.stages.eval_command import main

SHOUT = """
task: NAME
dataset_path: me/on-the-hub
output_type: generate_until
test_split: test
fewshot_split: train
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 6, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "shout.yaml").write_text(SHOUT.replace("NAME", "shout"))
    (folder / "pick.yaml").write_text(PICK)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for split, num in (("train", 4), ("test", 9)):
        rows = [{"question": f"{split} {i}?", "answer": f"{split.upper()} {i}?"} for i in range(num)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def other_dir(model_dir, tmp_path_factory) -> Path:
    """Another random model, with a chat template."""
    folder = tmp_path_factory.mktemp("other")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    apply_template(tokenizer, load_template("chatml"))
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for weight in model.parameters():
        weight.data += 0.1 * weight.data.roll(1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def evaluate(tasks, data, tmp_path, capsys):
    """Runs the command; gives its exit code, its JSON and what it said on stderr."""

    def run(*words, names="shout,pick"):
        own = [each for name in names.split(",") for each in ("--data", f"{name}={data}")]
        argv = [*map(str, words), "--tasks", names, "--include-path", str(tasks), *own]
        capsys.readouterr()
        cache = [] if "--no-cache" in words else ["--cache", str(tmp_path / "cache")]
        code = main([*argv, *cache, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if code == 0 else None, err

    return run


def test_two_models_on_the_same_documents(evaluate, model_dir, other_dir, tmp_path):
    code, told, _ = evaluate(model_dir, "--against", other_dir, "--out", tmp_path / "out")
    assert code == 0 and told["models"] == [str(model_dir), str(other_dir)]
    assert [(row["task"], row["num_samples"], row["num_fewshot"]) for row in told["results"][1]] == [
        ("shout", 9, 0),
        ("pick", 9, 0),
    ]
    assert all(row["low"] <= row["value"] <= row["high"] for rows in told["results"] for row in rows)
    for row, each in zip(zip(*told["results"], strict=True), told["differences"], strict=True):
        assert each["delta"] == pytest.approx(row[0]["value"] - row[1]["value"])
        assert each["verdict"] in ("better", "worse", "noise") and each["num_samples"] == 9
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == told
    documents = [
        json.loads((tmp_path / "out" / side / "pick.jsonl").read_text().splitlines()[0])
        for side in ("model", "against")
    ]
    # each model is asked in its own way
    assert documents[0]["prompt"] == "test 0?"
    assert documents[1]["prompt"] == "<|im_start|>user\ntest 0?<|im_end|>\n<|im_start|>assistant\n"


def test_nothing_is_asked_twice_unless_something_changes(evaluate, model_dir, other_dir, monkeypatch):
    first = evaluate(model_dir)[1]
    assert first["requests"] == [{"asked": 9 + 18, "known": 0}]
    with monkeypatch.context() as patched:
        patched.setattr(EvalModel, "_generate", None)
        again = evaluate(model_dir)[1]
    assert again["requests"] == [{"asked": 0, "known": 27}] and again["results"] == first["results"]
    assert evaluate(model_dir, "--num-fewshot", 1, names="shout")[1]["requests"][0]["asked"] == 9
    assert evaluate(other_dir, "--raw")[1]["requests"] == [{"asked": 27, "known": 0}]
    assert evaluate(other_dir, "--no-cache")[1]["requests"] == [{"asked": 0, "known": 0}]


def test_a_model_is_known_by_its_weights_not_by_its_name(model_dir, tmp_path):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    copy = shutil.copytree(model_dir, tmp_path / "copy")
    assert identity_of(AutoModelForCausalLM.from_pretrained(copy), tokenizer) == identity_of(model, tokenizer)
    before = identity_of(model, tokenizer)
    next(model.parameters()).data[0, 0] += 1e-3
    assert identity_of(model, tokenizer) != before
    changed = identity_of(model, tokenizer)
    tokenizer.chat_template = "{{ messages }}"
    assert identity_of(model, tokenizer) != changed


def test_what_a_kill_left_is_gone_on_with(tmp_path):
    requests = [Instance("generate_until", {}, (f"q{i}", {}), i) for i in range(10)]
    keys = [key_of("generate_until", each.args, False, 0, place) for place, each in enumerate(requests)]

    def dies(chunk):
        if any(each.args[0] == "q7" for each in chunk):
            raise KeyboardInterrupt
        return [each.args[0].upper() for each in chunk]

    with pytest.raises(KeyboardInterrupt):
        remembered(Answers(tmp_path, "m"), keys, requests, dies, 3)
    path = tmp_path / "m.jsonl"
    path.write_text(path.read_text() + '["torn')
    asked = []

    def works(chunk):
        asked.extend(each.args[0] for each in chunk)
        return [each.args[0].upper() for each in chunk]

    found = remembered(Answers(tmp_path, "m"), keys, requests, works, 3)
    assert found == [f"Q{i}" for i in range(10)] and asked == ["q6", "q7", "q8", "q9"]
    assert len(Answers(tmp_path, "m")._known) == 10  # the torn line took none with it
    assert len(dict(kept._read(tmp_path / "m.jsonl"))) == 10


def test_prompts_that_are_cut_are_counted_though_their_answers_are_known(model_dir, tmp_path):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    lm = EvalModel(model, tokenizer, batch_size=2, seed=0, answers=Answers(tmp_path, "m"))
    settings = {"until": ["\n"], "max_gen_toks": 2}
    requests = [Instance("generate_until", {}, (text, settings), 0) for text in ("word " * 900, "short")]
    for times in (1, 2):
        lm.generate_until(requests)
        assert lm.num_truncated == times


def test_repeats_of_a_sampled_request_stay_different(tmp_path):
    request = Instance("generate_until", {}, ("q", {"do_sample": True, "temperature": 1.0}), 0)
    keys = [key_of("generate_until", request.args, False, 0, place) for place in range(4)]
    calls = []

    def ask(chunk):
        calls.append(len(chunk))
        return [f"{len(calls)}.{i}" for i in range(len(chunk))]

    store = Answers(tmp_path, "m")
    assert remembered(store, keys, [request] * 4, ask, 1) == ["1.0", "1.1", "1.2", "1.3"] and calls == [4]
    greedy = Instance("generate_until", {}, ("q", {"do_sample": False}), 0)
    same = [key_of("generate_until", greedy.args, False, 0, place) for place in range(4)]
    assert remembered(store, same, [greedy] * 4, ask, 2) == ["2.0"] * 4 and calls == [4, 1]


def test_worked_examples_are_turns_of_a_chat(evaluate, other_dir, tmp_path):
    evaluate(other_dir, "--num-fewshot", 2, "--out", tmp_path / "out", names="shout")
    prompt = json.loads((tmp_path / "out/model/shout.jsonl").read_text().splitlines()[0])["prompt"]
    roles = [part.partition("\n")[0] for part in prompt.split("<|im_start|>")[1:]]
    assert roles == ["user", "assistant"] * 3
    assert prompt.endswith("test 0?<|im_end|>\n<|im_start|>assistant\n") and "TRAIN" in prompt


def test_a_model_behind_an_endpoint(evaluate, tmp_path):
    with FakeOpenAI() as server:
        words = ("--base-url", server.base_url, "--model", "served", "--num-fewshot", 1)
        code, told, _ = evaluate(*words, names="shout")
        assert code == 0 and told["results"][0][0]["value"] == 1.0  # it shouts
        body = server.requests[0]
        assert server.paths[0] == "/v1/chat/completions" and body["model"] == "served"
        assert [each["role"] for each in body["messages"]] == ["user", "assistant", "user"]
        assert (body["max_tokens"], body["stop"], body["temperature"]) == (6, ["\n"], 0.0)
        assert len(server.requests) == 9
        assert evaluate(*words, names="shout")[1]["requests"] == [{"asked": 0, "known": 9}]
        assert len(server.requests) == 9


def test_two_models_behind_one_endpoint(evaluate):
    def says(body: dict[str, Any]) -> str:
        last = body["messages"][-1]["content"]
        return last.upper() if body["model"] == "loud" else last

    with FakeOpenAI(says) as server:
        words = ("--base-url", server.base_url, "--model", "loud", "--against-model", "quiet", "--num-fewshot", 1)
        code, told, _ = evaluate(*words, names="shout")
    assert code == 0 and told["models"] == ["loud", "quiet"]
    assert [rows[0]["value"] for rows in told["results"]] == [1.0, 0.0]
    assert told["differences"][0]["delta"] == 1.0


def test_an_endpoint_is_not_asked_for_likelihoods(evaluate):
    with FakeOpenAI() as server:
        code, _, err = evaluate("--base-url", server.base_url, "--model", "served")
        assert code == 2 and "task pick: needs the likelihood of given answers" in err and not server.requests


def test_a_request_without_an_answer_stops_the_evaluation(evaluate):
    with FakeOpenAI(always=refused(400, "too long")) as server:
        code, told, err = evaluate("--base-url", server.base_url, "--model", "served", names="shout")
    assert code == RunError.exit_code and told is None and "gave no answer (HTTP 400: too long" in err


SERVED = ("--base-url", "http://localhost:1/v1", "--model", "m")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "takes either a MODEL or --base-url"),
        (("m", "--base-url", "http://localhost:1/v1"), "takes either a MODEL or --base-url"),
        (("--base-url", "http://localhost:1/v1"), "goes with --model"),
        (("m", "--limit", "0"), "--limit 0: must be at least 1"),
        (("m", "--data", "shuot=there"), "--data shuot: is no TASK=FOLDER of a task in --tasks"),
        (("m", "--num-fewshot", "-1"), "cannot be less than 0"),
        (("m", "--against-stage", "sft"), "--against-stage: has no effect without --against; remove it"),
        (("m", "--against-model", "other"), "--against-model: has no effect without --base-url"),
        ((*SERVED, "--against", "m", "--against-model", "other"), "--against-model: goes not with --against"),
        ((*SERVED, "--stage", "sft"), "--stage: has no effect with --base-url"),
        (("m", "--concurrency", "8"), "--concurrency: has no effect without --base-url"),
        (("m", "--api-key-env", "KEY"), "--api-key-env: has no effect without --base-url"),
        ((*SERVED, "--batch-size", "4"), "--batch-size: has no effect where no model is loaded here"),
        (("m", "--cache", "there", "--no-cache"), "--cache: has no effect with --no-cache"),
    ],
)
def test_options_that_do_not_fit_are_named(evaluate, words, says):
    code, _, err = evaluate(*words)
    assert code == 2 and says in err


def test_the_table_says_what_is_noise(model_dir, other_dir, tasks, data, tmp_path, capsys):
    argv = [str(model_dir), "--tasks", "pick", "--data", f"pick={data}", "--include-path", str(tasks), "--no-cache"]
    assert main([*argv, "--against", str(other_dir)]) == 0
    out = capsys.readouterr().out
    assert "noise" in out and "0 of 1 differences are more than chance" in out and f"against {other_dir}" in out
