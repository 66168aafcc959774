"""A reward model that is there already, such as one of the Hub: measured on rankings, and used as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.helpers_preference import Chain, chat_model, rows_of, write_prompts
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from llmkit.data.pairs import tail_of
from llmkit.errors import ModelError
from llmkit.modeling.reward_model import CARD, PROMPTS, load_rewards
from llmkit.stages.preferring import score_texts

LIKES = "data.helpers_preference:vowels"
ASKED = [[{"role": "user", "content": f"What is {i} plus 3?"}] for i in range(6)]
SAID = ["aaa", "It is 4.", "", "zzz", "one two three", "4"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Chain:
    """Rankings of two sets of prompts, and a reward model of one of them."""
    folder = tmp_path_factory.mktemp("run")
    chain = Chain(folder, chat_model(model_dir, tmp_path_factory.mktemp("chat") / "model"))
    for name, numbers in (("own", range(16)), ("other", range(16, 30))):
        prompts = write_prompts(folder / f"{name}.jsonl", numbers)
        chain.run("rollout", f"answers-{name}", data=[{"path": str(prompts)}], num_completions=3, max_new_tokens=8)
        chain.run("rank", f"ranks-{name}", rollouts=f"answers-{name}", by="labeller", labeller=LIKES)
    chain.run("reward", "gold", data=[{"from": "ranks-other"}], global_batch_size=8, heldout_fraction=0.3)
    return chain


@pytest.fixture(scope="module")
def finished(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As TRL's RewardTrainer leaves one: weights, config and tokenizer, and a template of its own."""
    folder = tmp_path_factory.mktemp("finished") / "model"
    shutil.copytree(chain.dirs["gold"] / "model", folder)
    (folder / CARD).unlink()
    (folder / PROMPTS).unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "<|im_start|> ")
    tokenizer.save_pretrained(folder)
    return folder


def adopted(chain: Chain, folder: Path, finished: Path, **model: Any) -> tuple[Path, Any]:
    own = Chain(folder, chain.model)
    own.dirs = dict(chain.dirs)
    spec = {"name_or_path": str(finished), **model}
    worker, manifest = own.run("reward", "public", model=spec, train=False, data=[{"from": "ranks-own"}])
    chain.dirs["public"] = own.dirs["public"]
    return worker.dir.model, manifest


def test_it_scores_what_its_own_template_writes_to_the_end(chain: Chain, tmp_path: Path, finished: Path) -> None:
    """As it was trained to, by TRL: behind the stop token there is a line break."""
    folder, manifest = adopted(chain, tmp_path, finished)
    models = load_rewards(folder)
    assert models.card.tail_ids == tail_of(models.tokenizer) != []
    tokenizer = AutoTokenizer.from_pretrained(finished)
    reference = AutoModelForSequenceClassification.from_pretrained(finished).eval()
    expected = []
    for prompt, text in zip(ASKED, SAID, strict=True):
        conversation = [*prompt, {"role": "assistant", "content": text}]
        ids = tokenizer.apply_chat_template(conversation, return_dict=True, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            expected.append(float(reference(input_ids=ids).logits[0, 0]))
    found_NM = score_texts(models, ASKED, SAID)
    card = models.card
    assert found_NM[:, 0] * card.deviations[0] + card.means[0] == pytest.approx(expected, abs=1e-4)
    assert card.accuracy == manifest.metrics["heldout/accuracy"]
    assert manifest.data.num_rows == len(rows_of(chain.dirs["ranks-own"] / "data" / "train.jsonl"))
    assert not len(np.load(folder / PROMPTS))


def test_padding_that_ends_texts_stays_the_models_own(chain: Chain, tmp_path: Path, finished: Path) -> None:
    """TRL pads with the stop token where there is no other. The score then stands in front of it."""
    folder = tmp_path / "padded"
    shutil.copytree(finished, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.role + ': ' }}{% if message.role == 'assistant' %}{% generation %}"
        "{{ message.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message.content + '<|im_end|>' }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": tokenizer.eos_token_id}))
    made, _ = adopted(chain, tmp_path, folder)
    models = load_rewards(made)
    assert models.tokenizer.pad_token == models.tokenizer.eos_token == "<|im_end|>"
    reference = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = [tokenizer.encode(f"user: {text}<|im_end|>", return_tensors="pt") for text in SAID]
    with torch.inference_mode():
        expected = [float(reference(input_ids=each).logits[0, 0]) for each in ids]
    assert models.raw([each[0].tolist() for each in ids])[:, 0] == pytest.approx(expected, abs=1e-4)


def test_its_weights_stay_as_they_are_in_the_type_that_is_wanted(chain: Chain, tmp_path: Path, finished: Path) -> None:
    folder, _ = adopted(chain, tmp_path, finished, dtype="bfloat16")
    (found,) = load_rewards(folder).members
    expected = AutoModelForSequenceClassification.from_pretrained(finished, dtype=torch.bfloat16)
    assert found.dtype == torch.bfloat16
    own = found.state_dict()
    assert all(torch.equal(own[name], weight) for name, weight in expected.state_dict().items())


def test_practice_against_it_under_a_guard_that_was_trained(chain: Chain, tmp_path: Path, finished: Path) -> None:
    adopted(chain, tmp_path, finished)
    own = Chain(tmp_path / "practice", chain.model)
    own.folder.mkdir()
    own.dirs = dict(chain.dirs)
    _, manifest = own.run(
        "rlhf",
        "rlhf",
        data=[{"path": str(write_prompts(tmp_path / "t.jsonl", range(200, 230)))}],
        heldout={"prompts": [{"path": str(write_prompts(tmp_path / "h.jsonl", range(100, 112)))}]},
        reward_model="public",
        guard={"gold": "gold", "num_prompts": 12, "every": 0.5, "max_unlikely": None},
        global_batch_size=16,
        trainer={"max_steps": 2, "learning_rate": 1e-5},
    )
    assert manifest.metrics["steps"] == 2
    assert "guard_best_step" in manifest.metrics


def test_what_is_no_finished_reward_model_is_refused(chain: Chain, tmp_path: Path, finished: Path) -> None:
    with pytest.raises(ModelError, match=r"is no reward model \(.*ForCausalLM\)"):
        adopted(chain, tmp_path, chain.model, chat_template="chatml")
    two = tmp_path / "two"
    shutil.copytree(finished, two)
    config = AutoConfig.from_pretrained(finished, num_labels=2)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(two)
    with pytest.raises(ModelError, match="gives 2 numbers for a text"):
        adopted(chain, tmp_path, two)
    headless = tmp_path / "headless"
    shutil.copytree(finished, headless)
    AutoModelForSequenceClassification.from_pretrained(finished).model.save_pretrained(headless)
    config = json.loads((headless / "config.json").read_text())
    named = {**config, "architectures": [config["architectures"][0].replace("Model", "ForSequenceClassification")]}
    (headless / "config.json").write_text(json.dumps({**named, "id2label": {"0": "LABEL_0"}}))
    with pytest.raises(ModelError, match=r"lacks weights \(score.weight"):
        adopted(chain, tmp_path, headless)


def test_a_template_with_tokens_of_its_own_is_refused(chain: Chain, tmp_path: Path, finished: Path) -> None:
    with pytest.raises(ModelError, match="has a chat template with tokens that it does not know"):
        adopted(chain, tmp_path, finished, chat_template="chatml_search")
