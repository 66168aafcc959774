"""Generation against transformers' own, on a tiny random model."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from llmkit.errors import DataError, UserError
from llmkit.generation.choose import Sampling, choose, uniforms
from llmkit.generation.decode import stop_ids
from llmkit.generation.sample import generate
from llmkit.generation.stream import stream


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Every token is a byte, so characters beyond ASCII take several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(vocab={"<eos>": 0, "<pad>": 1} | {c: i + 2 for i, c in enumerate(alphabet)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        initializer_range=0.6,
        eos_token_id=0,
        pad_token_id=1,
    )
    return Qwen3ForCausalLM(config)


def prompts(count: int = 12) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 20, (count,), generator=generator).tolist()
    return [torch.randint(2, 258, (length,), generator=generator).tolist() for length in lengths]


def test_greedy_equals_model_generate_for_uneven_prompts(model, tokenizer):
    model.eval()
    stops = list(range(60))  # many stop tokens, so that rows finish at different steps and the batch shrinks
    ours = generate(model, tokenizer, prompts(), max_new_tokens=16, stop_token_ids=stops, batch_size=5)
    for prompt, completion in zip(prompts(), ours, strict=True):
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=stops)
        assert completion.ids == theirs[0, len(prompt) :].tolist()
        assert completion.finish_reason == ("stop" if completion.ids[-1] in stops else "length")
    assert len({len(completion.ids) for completion in ours}) > 3


def test_a_model_with_absolute_positions_counts_them_from_its_own_prompt(tokenizer):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=258, n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.6)
    model = GPT2LMHeadModel(config).eval()
    ours = generate(model, tokenizer, prompts(5), max_new_tokens=8, stop_token_ids=[])
    for prompt, completion in zip(prompts(5), ours, strict=True):
        alone = generate(model, tokenizer, [prompt], max_new_tokens=8, stop_token_ids=[])
        assert completion.ids == alone[0].ids


def test_sampling_is_fixed_by_the_seed_whatever_the_batch(model, tokenizer):
    def sample(seed: int, batch_size: int) -> list[list[int]]:
        made = generate(
            model, tokenizer, prompts(), max_new_tokens=12, temperature=1.0, seed=seed, batch_size=batch_size
        )
        return [completion.ids for completion in made]

    assert sample(3, 12) == sample(3, 4)
    assert sample(3, 12) != sample(4, 12)
    assert len({tuple(ids) for ids in sample_same_prompt(model, tokenizer)}) == 4


def sample_same_prompt(model, tokenizer) -> list[list[int]]:
    made = generate(model, tokenizer, [[5, 6]] * 4, max_new_tokens=12, temperature=1.0)
    return [completion.ids for completion in made]


def test_draws_follow_the_distribution():
    logits_BV = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(4000, -1)
    uniforms_B = torch.from_numpy(uniforms(0, 0, 4000))
    shares = torch.bincount(choose(logits_BV, uniforms_B, Sampling(temperature=0.7)), minlength=4) / 4000
    assert torch.allclose(shares, torch.softmax(logits_BV[0] / 0.7, dim=-1), atol=0.03)


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(temperature=1, top_k=2), {1, 2}),
        (Sampling(temperature=1, top_p=0.5), {2}),
        (Sampling(temperature=1, top_p=0.85), {1, 2}),
        (Sampling(temperature=1, min_p=0.1), {0, 1, 2}),
        (Sampling(temperature=1, top_p=1e-50), {2}),
        (Sampling(temperature=0), {2}),
        (Sampling(temperature=1e-40), {2}),
        (Sampling(temperature=1e-40, top_p=1e-50), {2}),
    ],
)
def test_cuts_leave_exactly_the_likeliest(sampling, allowed):
    logits_BV = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(2000, -1)  # 0.087, 0.237, 0.644, 0.032
    drawn = choose(logits_BV, torch.from_numpy(uniforms(0, 0, 2000)), sampling)
    assert set(drawn.tolist()) == allowed


def test_rows_that_are_all_but_cold_are_greedy():
    logits_BV = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(3, -1)
    colds_B = torch.tensor([1e-40, 0.0, 9e-6])
    assert choose(logits_BV, torch.full((3,), 0.99), Sampling(top_p=0.9), colds_B).tolist() == [2, 2, 2]


def test_a_sampling_value_out_of_range_is_refused():
    with pytest.raises(UserError, match=r"top_p: is 1.5; give a number above 0 and at most 1"):
        Sampling(top_p=1.5)


def test_stop_strings_end_the_row_and_are_cut_off(model, tokenizer):
    whole = generate(model, tokenizer, prompts(), max_new_tokens=16, stop_token_ids=[])
    text = next(completion.text for completion in whole if "\ufffd" not in completion.text[4:7])
    index = [completion.text for completion in whole].index(text)
    string = text[4:7]
    cut = generate(model, tokenizer, prompts(), max_new_tokens=16, stop_token_ids=[], stop_strings=[string])[index]
    assert cut.finish_reason == "stop"
    assert cut.text == text[: text.index(string)]
    assert len(cut.ids) < 16


def test_logprobs_are_those_of_a_forward_pass(model, tokenizer):
    made = generate(model, tokenizer, prompts(3), max_new_tokens=6, temperature=1.3, logprobs=True, stop_token_ids=[])
    for prompt, completion in zip(prompts(3), made, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion.ids])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-4)


def test_the_context_is_never_overrun(model, tokenizer):
    [made] = generate(model, tokenizer, [[5] * 60], max_new_tokens=16, stop_token_ids=[])
    assert (len(made.ids), made.finish_reason) == (4, "length")
    with pytest.raises(DataError, match="64 tokens and the model's context holds 64"):
        generate(model, tokenizer, [[5] * 64], max_new_tokens=1)
    with pytest.raises(DataError, match="prompt 1: it has no tokens"):
        generate(model, tokenizer, [[5], []], max_new_tokens=1)


def test_stop_ids_are_the_generation_configs_and_the_tokenizers(model, tokenizer):
    model.generation_config.eos_token_id = [7, 9]
    try:
        assert stop_ids(model, tokenizer) == [0, 7, 9]
    finally:
        model.generation_config.eos_token_id = 0


def test_a_model_in_training_stays_so(model, tokenizer):
    model.train()
    generate(model, tokenizer, prompts(1), max_new_tokens=1)
    assert model.training


def test_progress_counts_prompts(model, tokenizer):
    seen: list[tuple[int, int]] = []
    generate(model, tokenizer, prompts(5), max_new_tokens=1, batch_size=2, on_progress=lambda *at: seen.append(at))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_stream_gives_the_same_text_in_whole_characters(model, tokenizer, monkeypatch):
    text = "Zoë: 東京 🙂!"
    script = [*tokenizer.encode(text), 0]
    monkeypatch.setattr("llmkit.generation.decode.choose", lambda logits, *_: next(tokens))
    tokens = (torch.tensor([token]) for token in script)
    pieces = list(stream(model, tokenizer, [5], max_new_tokens=40, sampling=Sampling()))
    assert "".join(pieces) == text
    assert len(pieces) == len(text)


def test_stream_equals_generate(model, tokenizer):
    [whole] = generate(model, tokenizer, prompts(1), max_new_tokens=16)
    pieces = stream(model, tokenizer, prompts(1)[0], max_new_tokens=16, sampling=Sampling())
    assert "".join(pieces) == whole.text
