"""The local engine: shared prefill, temperatures per row, order, random numbers, prompts that do not fit."""

from __future__ import annotations

import math

import pytest
import torch
from helpers_data import byte_tokenizer
from transformers import (
    FalconH1Config,
    FalconH1ForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from llmkit.chat.ask import Ask
from llmkit.chat.render import prompt_ids
from llmkit.errors import TemplateError, UserError
from llmkit.generation import decode as decode_module
from llmkit.generation import engine as engine_module
from llmkit.generation.choose import Sampling, choose, hash_of, uniforms, uniforms_of
from llmkit.generation.engine import TransformersEngine, open_engine
from llmkit.generation.sample import generate

CONTEXT = 96
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.6,
}


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(chat=True)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    return Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=2, **SHAPE, **ids)).eval()


def asks(count: int = 12, num_samples: int = 3, temperature: float = 1.0) -> list[Ask]:
    """Prompts of uneven lengths."""
    texts = [f"{'abcdefgh'[place % 8] * (1 + 5 * place % 17)} {place}" for place in range(count)]
    temperatures = (0.0, *[temperature] * num_samples)
    return [Ask(text, key=f"q{place}", temperatures=temperatures) for place, text in enumerate(texts)]


def answers(model, tokenizer, questions, batch_size=64, **options):
    options = {"max_new_tokens": 10, **options}
    return list(TransformersEngine(model, tokenizer, batch_size).answer(questions, **options))


def texts(found):
    return [[answer.text for answer in each] for each in found]


def generated(model, tokenizer, text: str, max_new_tokens: int) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return model.generate(ids, max_new_tokens=max_new_tokens, do_sample=False)[0, ids.shape[1] :].tolist()


def test_greedy_answers_equal_model_generate_beside_sampled_ones(model, tokenizer, monkeypatch):
    stops = [*range(30), tokenizer.eos_token_id]  # many, so that rows finish at different steps
    monkeypatch.setattr(model.generation_config, "eos_token_id", stops)
    found = answers(model, tokenizer, asks(), batch_size=24, max_new_tokens=16)
    for ask, each in zip(asks(), found, strict=True):
        ids = generated(model, tokenizer, ask.prompt, 16)
        assert each[0].text == tokenizer.decode(ids, skip_special_tokens=True)
        assert each[0].num_tokens == len(ids)
        assert len(each) == 4
    assert len({answer.num_tokens for each in found for answer in each}) > 5


@pytest.mark.parametrize(
    ("config", "kind", "options"),
    [
        (Qwen3NextConfig, Qwen3NextForCausalLM, {"num_experts": 4, "num_experts_per_tok": 2}),
        (Lfm2Config, Lfm2ForCausalLM, {"layer_types": ["conv", "full_attention"]}),
        (FalconH1Config, FalconH1ForCausalLM, {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8}),
        (Qwen3Config, Qwen3ForCausalLM, {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
    ],
)
def test_other_kinds_of_layers_repeat_their_cache_too(config, kind, options, tokenizer):
    torch.manual_seed(0)
    shape = {**SHAPE, "num_hidden_layers": 2, "vocab_size": len(tokenizer), **options}
    if config is Qwen3NextConfig:
        shape |= {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4}
        shape |= {"linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
        shape |= {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
    model = kind(config(**shape)).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    found = answers(model, tokenizer, asks(6), batch_size=24)
    alone = [answers(model, tokenizer, [ask], batch_size=1)[0] for ask in asks(6)]
    assert texts(found) == texts(alone)
    for ask, each in zip(asks(6), found, strict=True):
        assert each[0].text == tokenizer.decode(generated(model, tokenizer, ask.prompt, 10), skip_special_tokens=True)


def test_a_prompt_goes_through_the_model_once(model, tokenizer, monkeypatch):
    shapes = []
    forward = decode_module._Cached.forward

    def counted(self, input_BT):
        shapes.append(tuple(input_BT.shape))
        return forward(self, input_BT)

    monkeypatch.setattr(decode_module._Cached, "forward", counted)
    answers(model, tokenizer, [Ask("abcdef", "q", (0.0, 1.0, 1.0, 1.0))], max_new_tokens=2)
    assert shapes[0] == (1, 6)
    assert shapes[1][0] in (3, 4) and shapes[1][1] == 1
    shapes.clear()
    generate(model, tokenizer, [[40, 41], [40, 41], [50, 51]], max_new_tokens=1, batch_size=3)
    assert shapes == [(2, 2)]


def test_answers_depend_on_seed_key_and_place_alone(model, tokenizer):
    whole = answers(model, tokenizer, asks(), seed=3)
    assert texts(answers(model, tokenizer, asks(), seed=3, batch_size=5)) == texts(whole)
    part = answers(model, tokenizer, asks()[7:2:-2], seed=3, batch_size=3)
    assert texts(part) == texts(whole[7:2:-2])
    assert texts(answers(model, tokenizer, asks(), seed=4)) != texts(whole)
    renamed = [Ask(ask.prompt, f"{ask.key}x", ask.temperatures) for ask in asks()]
    other = answers(model, tokenizer, renamed, seed=3)
    assert [each[0] for each in other] == [each[0] for each in whole]
    assert texts(other) != texts(whole)
    assert len({answer.text for answer in whole[0][1:]}) == 3


def test_one_answer_is_the_same_whatever_stands_beside_it_in_its_ask(model, tokenizer):
    [one] = answers(model, tokenizer, [Ask("abc", "q", (0.7, 0.7))])
    [two] = answers(model, tokenizer, [Ask("abc", "q", (0.7, 0.7, 0.0, 1.3))])
    assert texts([one]) == texts([two[:2]])


def test_each_row_has_its_own_temperature():
    logits_BV = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(6000, -1)
    temperatures_B = torch.tensor([0.0, 0.5, 2.0]).repeat(2000)
    drawn = choose(logits_BV, torch.from_numpy(uniforms(0, 0, 6000)), Sampling(), temperatures_B)
    assert set(drawn[::3].tolist()) == {2}
    for first, temperature in ((1, 0.5), (2, 2.0)):
        shares = torch.bincount(drawn[first::3], minlength=4) / 2000
        assert torch.allclose(shares, torch.softmax(logits_BV[0] / temperature, dim=-1), atol=0.04)


@pytest.mark.parametrize("sampling", [Sampling(temperature=1), Sampling(temperature=1, top_p=0.999)])
@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_a_token_without_probability_is_never_drawn(sampling, number):
    logits_BV = torch.tensor([[-torch.inf, 0.0, 3.0, -torch.inf], [5.0, -torch.inf, -torch.inf, -torch.inf]])
    drawn = choose(logits_BV, torch.full((2,), number), sampling)
    assert drawn[0] in (1, 2) and drawn[1] == 0


def test_the_cut_holds_for_sampled_answers_only(model, tokenizer):
    found = answers(model, tokenizer, asks(), top_p=1e-6)
    assert all({answer.text for answer in each} == {each[0].text} for each in found)


def test_random_numbers_of_a_key():
    assert uniforms_of(1, "a", 2, 4).tolist() == uniforms_of(1, "a", 2, 8)[:4].tolist()
    others = [(2, "a", 2), (1, "b", 2), (1, "a", 3), (12, "a", 2), (1, "2 a", 2), (-1, "a", 2), (1, "\ud800", 2)]
    assert len({tuple(uniforms_of(*other, 4)) for other in [(1, "a", 2), *others]}) == 8
    assert hash_of(1, "a", 2, 32) == 3809693015  # rows of a probe can be made again on another machine


def test_log_probabilities_are_sums_under_the_model_itself(model, tokenizer):
    for ask, each in zip(asks(4), answers(model, tokenizer, asks(4), max_new_tokens=6), strict=True):
        prompt = tokenizer.encode(ask.prompt, add_special_tokens=False)
        for place, answer in enumerate(each):
            draws = uniforms_of(0, ask.key, place, 6)
            ids: list[int] = []
            total = 0.0
            while len(ids) < answer.num_tokens:
                logits = model(torch.tensor([prompt + ids])).logits[:, -1].detach()
                sampling = Sampling(temperature=ask.temperatures[place])
                token = int(choose(logits, torch.from_numpy(draws[len(ids) : len(ids) + 1]), sampling))
                total += float(torch.log_softmax(logits, dim=-1)[0, token])
                ids.append(token)
            assert tokenizer.decode(ids, skip_special_tokens=True) == answer.text
            assert answer.logprob == pytest.approx(total, abs=1e-3)


def test_stop_strings_end_an_answer_and_are_cut(model, tokenizer):
    whole = answers(model, tokenizer, asks(), max_new_tokens=20)
    string = next(a.text[3] for each in whole for a in each if len(a.text) > 6 and a.text[3].isascii())
    cut = answers(model, tokenizer, asks(), max_new_tokens=20, stop_strings=[string, ""])
    assert texts(cut) == [[text.partition(string)[0] for text in each] for each in texts(whole)]
    stopped = [a for each in cut for a in each if a.finish_reason == "stop"]
    assert min(answer.num_tokens for answer in stopped) < 20


def test_messages_are_rendered_through_the_template(model, tokenizer):
    messages = ({"role": "user", "content": "hi"},)
    ids = prompt_ids(tokenizer, list(messages))
    [[answer]] = answers(model, tokenizer, [Ask(messages, "q")])
    [expected] = generate(model, tokenizer, [ids], max_new_tokens=10)
    assert answer.text == expected.text
    bare = byte_tokenizer()
    with pytest.raises(TemplateError, match="chat template"):
        answers(model, bare, [Ask(messages, "q")])


def test_a_prompt_that_does_not_fit_is_an_answer_with_an_error(model, tokenizer):
    questions = [Ask("", "a", (0.0, 0.7)), Ask("x" * 200, "b"), Ask("fine", "c"), Ask((), "d"), Ask("none", "e", ())]
    seen: list[tuple[int, int]] = []
    engine = TransformersEngine(model, tokenizer, 4, on_progress=lambda *at: seen.append(at))
    empty, long, fine, no_messages, nothing = engine.answer(questions, max_new_tokens=4)
    assert [(a.finish_reason, a.text, a.logprob) for a in empty] == [("error", "", None)] * 2
    assert "no tokens" in empty[0].error
    assert f"200 tokens and the model's context holds {CONTEXT}" in long[0].error
    assert fine[0].finish_reason in ("stop", "length") and not fine[0].error
    assert "there is no message" in no_messages[0].error
    assert all(a.permanent for a in (*empty, *long, *no_messages)) and not fine[0].permanent
    assert nothing == []
    assert seen[-1] == (5, 5)


def test_an_answer_ends_where_the_context_ends(model, tokenizer):
    [[answer]] = answers(model, tokenizer, [Ask("x" * (CONTEXT - 3), "a")], max_new_tokens=50)
    assert answer.num_tokens <= 3


def test_asks_are_read_window_by_window_and_answers_keep_their_order(model, tokenizer, monkeypatch):
    monkeypatch.setattr(engine_module, "WINDOW", 2)

    class Many:
        most = -1

        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, place: int) -> Ask:
            self.most = max(self.most, place)
            return asks(40)[place % 40]

    many = Many()
    stream = TransformersEngine(model, tokenizer, 8).answer(many, max_new_tokens=4)
    first = [next(stream) for _ in range(10)]
    assert many.most < 16
    assert texts(first) == texts(answers(model, tokenizer, asks(40)[:10], max_new_tokens=4))


def test_more_temperatures_than_a_batch_holds(model, tokenizer):
    question = Ask("abc", "q", (0.0, *[1.0] * 9))
    assert texts(answers(model, tokenizer, [question], batch_size=4)) == texts(answers(model, tokenizer, [question]))


def test_no_asks_are_no_answers(model, tokenizer):
    assert answers(model, tokenizer, []) == []


@pytest.mark.parametrize(
    ("options", "name"),
    [({"max_new_tokens": 0}, "max_new_tokens"), ({"top_p": 0.0}, "top_p"), ({"temperature": -1.0}, "temperature")],
)
def test_values_out_of_range_are_refused(model, tokenizer, options, name):
    options = dict(options)
    questions = asks(1, temperature=options.pop("temperature", 1.0))
    with pytest.raises(UserError, match=name):
        answers(model, tokenizer, questions, **options)
    with pytest.raises(UserError, match="temperature"):
        answers(model, tokenizer, [Ask("a", "q", (math.nan,))])
    with pytest.raises(UserError, match="batch_size"):
        TransformersEngine(model, tokenizer, 0)


def test_open_engine_names_what_is_missing(model, tokenizer):
    assert isinstance(open_engine("transformers", tokenizer, model=model), TransformersEngine)
    with pytest.raises(UserError, match="given no model"):
        open_engine("continuous", tokenizer)
    with pytest.raises(UserError, match="give the model's folder"):
        open_engine("vllm", tokenizer, model=model)
    with pytest.raises(UserError, match="does not take dtype"):
        open_engine("transformers", tokenizer, model=model, dtype="bfloat16")
