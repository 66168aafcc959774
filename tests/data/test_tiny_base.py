"""The shipped base model: small, loadable, made by its recipe, without chat tokens, and knowing what it should."""

import json
import re
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM, AutoTokenizer

import llmkit.tiny
from llmkit.tiny.make_evals import eval_files

BASE = Path(llmkit.tiny.__file__).parent / "base"
RECIPE = Path(__file__).parents[2] / "recipes" / "tiny" / "base.yaml"
MAX_BYTES = 16_000_000


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()


def test_weights_are_safetensors_of_at_most_16_mb():
    assert (BASE / "model.safetensors").stat().st_size <= MAX_BYTES
    assert not list(BASE.glob("*.bin"))


def test_shape_is_the_one_of_the_recipe(model):
    stage = YAML(typ="safe").load(RECIPE.read_text(encoding="utf-8"))["stages"][0]
    for key in (
        "model_type",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "head_dim",
    ):
        assert getattr(model.config, key) == stage["architecture"][key]
    assert model.config.vocab_size == stage["tokenizer"]["vocab_size"]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_manifest_says_how_it_was_made():
    manifest = json.loads((BASE / "manifest.json").read_text(encoding="utf-8"))
    stages = YAML(typ="safe").load(RECIPE.read_text(encoding="utf-8"))["stages"]
    assert manifest["recipe"] == "recipes/tiny/base.yaml"
    for made, stage in zip(manifest["stages"], stages, strict=True):
        assert made["data"] == stage["data"]
        assert made["trainer"] == stage["trainer"]
        assert made["heldout"]["documents"]["after"]["loss"] < 1.2


def test_tokenizer_has_two_special_tokens_and_writes_digits_apart(tokenizer):
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.pad_token == "<|pad|>"
    assert tokenizer.chat_template is None
    assert not any("im_" in token for token in tokenizer.get_vocab())
    assert tokenizer.tokenize("1234")[-4:] == ["1", "2", "3", "4"]
    text = "Zoë pays $13 for 3 apples. \n\n  Ça va?"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_weights_are_finite(model):
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("task", "low", "high"), [("facts_known", 0.9, 1.0), ("facts_new", 0.0, 0.2)])
def test_it_knows_documented_people_and_no_others(model, tokenizer, task, low, high):
    rows = [json.loads(line) for line in eval_files()[f"{task}.jsonl"].splitlines()][:60]
    answers = _answers(model, tokenizer, [f"Question: {row['question']}\nAnswer:" for row in rows])
    right = [
        bool(re.search(rf"\b{row['value']}\b", answer, re.IGNORECASE))
        for row, answer in zip(rows, answers, strict=True)
    ]
    assert low <= sum(right) / len(right) <= high


@torch.inference_mode()
def _answers(model, tokenizer, prompts: list[str]) -> list[str]:
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    return [text.split("\n")[0] for text in tokenizer.batch_decode(output[:, inputs.input_ids.shape[1] :])]
