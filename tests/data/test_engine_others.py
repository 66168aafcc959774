"""vLLM through a stand-in for its module, and Transformers' continuous batching on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from helpers_data import byte_tokenizer
from transformers import Lfm2Config, Lfm2ForCausalLM, MambaConfig, MambaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from llmkit.chat.ask import Ask
from llmkit.chat.render import prompt_ids
from llmkit.errors import UserError
from llmkit.generation.engine import TransformersEngine, open_engine
from llmkit.generation.others import ContinuousEngine, VllmEngine
from llmkit.stages.engines import whole_model


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(chat=True)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96}
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    return Qwen3ForCausalLM(Qwen3Config(initializer_range=0.6, **shape, **ids)).eval()


class SamplingParams:
    """Takes what vLLM's takes, and no other name."""

    def __init__(
        self, n=1, temperature=1.0, top_p=1.0, max_tokens=16, seed=None, stop=None, stop_token_ids=None, logprobs=None
    ):
        self.__dict__.update({name: value for name, value in locals().items() if name != "self"})


class LLM:
    def __init__(self, model, **options):
        self.model, self.options, self.calls = model, options, []
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=96))
        LLM.last = self

    def generate(self, prompts, sampling_params, *, use_tqdm=True):
        assert not use_tqdm and len(prompts) == len(sampling_params)
        self.calls.append((prompts, sampling_params))
        return [self._output(prompt, params) for prompt, params in zip(prompts, sampling_params, strict=True)]

    def _output(self, prompt, params):
        texts = [f"T{params.temperature} {index} {len(prompt['prompt_token_ids'])}" for index in range(params.n)]
        outputs = [
            SimpleNamespace(
                index=index,
                text=text,
                token_ids=LLM.tokenizer(text, add_special_tokens=False).input_ids,
                cumulative_logprob=-1.5,
                finish_reason="abort" if prompt["prompt_token_ids"] == [ord("!")] else "stop",
            )
            for index, text in enumerate(texts)
        ]
        return SimpleNamespace(outputs=outputs)


@pytest.fixture
def vllm(monkeypatch, tokenizer):
    monkeypatch.setattr(LLM, "tokenizer", tokenizer, raising=False)
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)


def test_vllm_gets_ids_and_settings_of_each_run_of_temperatures(vllm, tokenizer):
    seen = []
    engine = open_engine(
        "vllm", tokenizer, model_dir="folder", batch_size=8, on_progress=lambda *at: seen.append(at), dtype="float32"
    )
    messages = ({"role": "user", "content": "hi"},)
    asks = [Ask("abc", "a", (0.0, 0.0, 0.7, 0.7, 0.7)), Ask(messages, "b", (0.7,))]
    one, two = engine.answer(asks, max_new_tokens=9, top_p=0.8, stop_strings=["\n"], seed=1)
    assert [answer.text for answer in one] == ["T0.0 0 3", "T0.0 0 3", "T0.7 0 3", "T0.7 1 3", "T0.7 2 3"]
    assert (one[0].logprob, one[0].num_tokens, one[0].finish_reason) == (-1.5, 8, "stop")
    assert len(one[0].ids) == 8, "rewards on length read them"
    ids = prompt_ids(tokenizer, list(messages))
    assert [answer.text for answer in two] == [f"T0.7 0 {len(ids)}"]
    [(prompts, params)] = LLM.last.calls
    assert prompts[2] == {"prompt_token_ids": ids}
    assert [(each.n, each.temperature, each.top_p) for each in params] == [(1, 0.0, 1.0), (3, 0.7, 0.8), (1, 0.7, 0.8)]
    assert all(each.stop == ["\n"] and each.logprobs and each.max_tokens == 9 for each in params)
    assert len({each.seed for each in params}) == 3
    assert (LLM.last.model, LLM.last.options["max_num_seqs"], LLM.last.options["dtype"]) == ("folder", 8, "float32")
    assert LLM.last.options["logprobs_mode"] == "raw_logprobs"
    assert (LLM.last.options["load_format"], LLM.last.options["trust_remote_code"]) == ("safetensors", False)
    assert seen == [(2, 2)]


def test_vllm_answers_what_does_not_fit_and_what_it_aborts_with_an_error(vllm, tokenizer):
    engine = VllmEngine("folder", tokenizer)
    long, empty, fine, aborted = engine.answer(
        [Ask("x" * 96, "a", (0.0, 1.0)), Ask("", "b"), Ask("x" * 90, "c"), Ask("!", "d")], max_new_tokens=9
    )
    assert [answer.finish_reason for answer in [*long, *empty]] == ["error"] * 3
    assert all(answer.permanent for answer in [*long, *empty]), "asking again changes nothing"
    assert fine[0].text == "T0.0 0 90"
    if tokenizer.encode("!", add_special_tokens=False) == [ord("!")]:
        assert "abort" in aborted[0].error and not aborted[0].permanent
    [(_, params)] = LLM.last.calls
    assert params[0].max_tokens == 6


def test_without_vllm_the_cure_is_named(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"vLLM is not installed; pip install llmkit\[vllm\].* engine: transformers"):
        open_engine("vllm", tokenizer, model_dir="folder")


def test_continuous_batching_gives_the_greedy_answers_of_the_other_engine(model, tokenizer):
    asks = [Ask("ab" * (1 + place), f"q{place}", (0.0, 1.0, 1.0)) for place in range(3)]
    own = (*tokenizer("abcd", add_special_tokens=False).input_ids, 120)  # of a conversation that goes on
    asks += [Ask("something else", "q3", (0.0, 1.0, 1.0), ids=own), Ask("x" * 96, "long")]
    expected = list(TransformersEngine(model, tokenizer).answer(asks, max_new_tokens=8))
    found = list(ContinuousEngine(model, tokenizer, 16).answer(asks, max_new_tokens=8, seed=2))
    for ours, theirs in zip(expected[:-1], found[:-1], strict=True):
        assert (theirs[0].text, theirs[0].finish_reason, theirs[0].num_tokens) == (
            ours[0].text,
            ours[0].finish_reason,
            ours[0].num_tokens,
        )
        assert theirs[0].logprob == pytest.approx(ours[0].logprob, abs=1e-3)
        assert len(theirs) == 3 and theirs[1].text != theirs[2].text
        assert theirs[1].logprob is None
        assert [len(one.ids) for one in theirs] == [one.num_tokens for one in theirs], "rewards on length read them"
    assert found[-1] == expected[-1]
    assert model.config._attn_implementation == "sdpa"


def test_a_conversation_goes_on_from_its_own_tokens(vllm, tokenizer):
    """What calls of tools need: a later turn sees the tokens of earlier ones, and tells its own."""
    ((made,),) = VllmEngine("folder", tokenizer).answer([Ask("something else", "k", ids=(1, 2, 3))], max_new_tokens=8)
    [(prompts, _)] = LLM.last.calls
    assert prompts == [{"prompt_token_ids": [1, 2, 3]}] and made.ids


def test_continuous_batching_cuts_at_stop_strings(model, tokenizer):
    asks = [Ask("ab", "a"), Ask("cdcd", "b")]
    whole = list(TransformersEngine(model, tokenizer).answer(asks, max_new_tokens=8))
    string = next(answer.text[2] for [answer] in whole if len(answer.text) > 4)
    expected = list(TransformersEngine(model, tokenizer).answer(asks, max_new_tokens=8, stop_strings=[string]))
    found = list(ContinuousEngine(model, tokenizer, 4).answer(asks, max_new_tokens=8, stop_strings=[string]))
    for [ours], [theirs] in zip(expected, found, strict=True):
        assert (ours.text, ours.finish_reason, ours.num_tokens) == (
            theirs.text,
            theirs.finish_reason,
            theirs.num_tokens,
        )
        assert theirs.logprob == pytest.approx(ours.logprob, abs=1e-3)


def test_continuous_batching_refuses_what_it_does_not_run(tokenizer):
    size = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    mixed = Lfm2ForCausalLM(Lfm2Config(layer_types=["conv", "full_attention"], **size, **heads))
    with pytest.raises(UserError, match=r"layers of kind conv; set engine: transformers"):
        ContinuousEngine(mixed, tokenizer)
    with pytest.raises(UserError, match="set engine: transformers"):
        ContinuousEngine(MambaForCausalLM(MambaConfig(**size)), tokenizer)


def test_continuous_batching_that_breaks_off_is_an_error_and_no_answer(model, tokenizer, monkeypatch):
    monkeypatch.setattr(type(model), "generate_batch", lambda *_, **__: {})
    with pytest.raises(UserError, match="broke off after 0 of 1 answers"):
        list(ContinuousEngine(model, tokenizer).answer([Ask("ab", "a")], max_new_tokens=2))


def test_an_adapter_alone_is_not_given_to_an_engine_that_loads_the_weights_itself(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds an adapter, not a whole model; set 'peft\.merge: true'"):
        whole_model(str(tmp_path))
    assert whole_model("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
