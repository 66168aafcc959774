"""`llmkit export`: what is written holds the model that was trained, and writes conversations as it was trained."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from data import go_template
from small import CONFIG, SHAPE
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llmkit.chat.template import apply_template, load_template
from llmkit.errors import ModelError, RunError, TemplateError
from llmkit.export import gguf_file
from llmkit.export.gguf_file import interleaved, write_gguf
from llmkit.export.template import plain_jinja, proof_conversations, render, turns_of
from llmkit.export.vocabulary import REGEXES, differs, pre_tokenizer_of
from llmkit.modeling.load import load_tokenizer
from llmkit.modeling.tokens import fit_model, prepare_tokenizer
from llmkit.stages.export import main


@pytest.fixture(scope="module")
def chat_dir(model_dir, tmp_path_factory) -> Path:
    """A random model that was given chatml, as a stage leaves it."""
    folder = tmp_path_factory.mktemp("chat")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    fit_model(model, tokenizer, prepare_tokenizer(tokenizer, load_template("chatml")))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(chat_dir, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "mine"
    assert main([str(chat_dir), "--to", "ollama", "--out", str(out), "--pre-tokenizer", "qwen2"]) == 0
    return out


def fields(path: Path) -> dict:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_ollama_writes_conversations_as_they_were_trained(chat_dir, exported):
    tokenizer = AutoTokenizer.from_pretrained(chat_dir)
    [source] = re.findall(r'TEMPLATE """(.*?)"""', (exported / "Modelfile").read_text(), flags=re.S)
    for messages in proof_conversations():
        data = {"Messages": [{"Role": each["role"], "Content": each["content"]} for each in messages]}
        trained = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert go_template.render(source, data) == trained


def test_the_modelfile_names_weights_stops_and_settings(exported):
    lines = (exported / "Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./model.gguf" and (exported / "model.gguf").is_file()
    assert [line for line in lines if "stop" in line] == [
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "<|endoftext|>"',
    ]
    # greedy, as the model's own generation config: Ollama would sample
    assert "PARAMETER temperature 0" in lines and "PARAMETER num_ctx 512" in lines


def test_gguf_holds_the_tokenizer_the_template_and_the_stop_tokens(chat_dir, exported):
    tokenizer, found = AutoTokenizer.from_pretrained(chat_dir), fields(exported / "model.gguf")
    assert found["general.architecture"] == "qwen3" and found["tokenizer.ggml.model"] == "gpt2"
    assert found["tokenizer.ggml.pre"] == "qwen2"
    num = len(tokenizer)
    assert found["tokenizer.ggml.tokens"][:num] == tokenizer.convert_ids_to_tokens(range(num))
    stop, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|pad|>"])
    assert (found["tokenizer.ggml.eos_token_id"], found["tokenizer.ggml.padding_token_id"]) == (stop, pad)
    assert found["tokenizer.ggml.token_type"][stop] == gguf.TokenType.CONTROL
    assert found["tokenizer.ggml.token_type"][100] == gguf.TokenType.NORMAL
    assert found["tokenizer.ggml.add_bos_token"] is False
    template = found["tokenizer.chat_template"]
    assert "generation %}" not in template
    for messages in proof_conversations():
        trained = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert render(tokenizer, template, messages, True) == trained


def test_transformers_reads_the_same_logits_out_of_the_gguf(chat_dir, exported):
    """A reader that llmkit did not write."""
    config = AutoConfig.from_pretrained(chat_dir)
    again = AutoModelForCausalLM.from_pretrained(exported, gguf_file="model.gguf", config=config, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(chat_dir)
    ids = torch.arange(40).reshape(2, 20) * 7 % 250
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_other_architectures_read_alike(chat_dir, model_type, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(chat_dir)
    shape = {key: value for key, value in {**SHAPE, **CONFIG}.items() if key not in ("model_type", "head_dim")}
    shape |= {"tie_word_embeddings": False, "vocab_size": 410, "max_position_embeddings": 64}
    config = AutoConfig.for_model(model_type, **shape, rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, None, name="m", pre_tokenizer="qwen2")
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    assert again.config.rope_parameters["rope_theta"] == 5000.0
    ids = torch.arange(40).reshape(2, 20) * 7 % 250
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-3, atol=1e-3)
    tokens = fields(tmp_path / "m.gguf")["tokenizer.ggml.tokens"]
    assert len(tokens) == 410 and tokens[409] == "[PAD409]"


def test_positions_of_llama_3_1_are_written_as_factors(chat_dir, tmp_path):
    """By the published formula: long waves are stretched by `factor`, short ones not, those between in part."""
    shape = {key: value for key, value in {**SHAPE, **CONFIG}.items() if key != "model_type"}
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    shape |= {"vocab_size": 410, "max_position_embeddings": 131072, "head_dim": 128}
    rope = {"rope_type": "llama3", "rope_theta": 500_000.0, **scaling}
    config = AutoConfig.for_model("llama", **shape, rope_parameters=rope)
    model = AutoModelForCausalLM.from_config(config)
    write_gguf(tmp_path / "m.gguf", model, AutoTokenizer.from_pretrained(chat_dir), None, name="m", pre_tokenizer="x")
    (read,) = (each for each in gguf.GGUFReader(tmp_path / "m.gguf").tensors if each.name == "rope_freqs.weight")
    assert read.tensor_type.name == "F32" and read.data.shape == (64,)

    plain = 500_000.0 ** -(np.arange(0, 128, 2) / 128)
    waves = 8192 * plain / (2 * np.pi)
    smooth = np.clip((waves - 1.0) / (4.0 - 1.0), 0, 1)
    np.testing.assert_allclose(read.data, 1 / ((1 - smooth) / 8.0 + smooth), rtol=1e-6)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    np.testing.assert_allclose(read.data, plain / scaled.numpy(), rtol=1e-6)
    assert read.data[0] == pytest.approx(1) and read.data[-1] == pytest.approx(8) and len({*read.data.tolist()}) > 4
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", config=config, dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))

    for model_type, kind in (("llama", "yarn"), ("qwen3", "llama3")):
        with pytest.raises(ModelError, match=f"scaled by '{kind}', which is not written"):
            gguf_file._architecture(
                SimpleNamespace(model_type=model_type, name_or_path="m", rope_parameters={"rope_type": kind})
            )


def test_llamas_rows_are_put_as_llama_cpp_turns_them():
    rows = torch.arange(8.0).reshape(8, 1)  # two heads of four rows
    assert interleaved(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(("dtype", "kind"), [(torch.bfloat16, "BF16"), (torch.float16, "F16")])
def test_halves_are_written_as_they_are(model_dir, dtype, kind, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, None, name="m", pre_tokenizer="qwen2")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == kind and kinds["output_norm.weight"] == "F32"
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", config=model.config, dtype=torch.float32)
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name].float()), name


def test_a_file_that_is_damaged_is_noticed(model_dir, tmp_path):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    path = tmp_path / "m.gguf"
    write_gguf(path, model, tokenizer, None, name="m", pre_tokenizer="qwen2")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="than was written"):
        gguf_file.check(path, gguf_file.tensors_of(model, gguf.MODEL_ARCH.QWEN3))


def test_vllm_gets_a_folder_that_transformers_loads(chat_dir, tmp_path, capsys):
    out = tmp_path / "v"
    assert main([str(chat_dir), "--to", "vllm", "--out", str(out), "--dtype", "bfloat16"]) == 0
    assert f"vllm serve {out}" in capsys.readouterr().out
    tokenizer, trained = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(chat_dir)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"][0] == stop
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16 and (out / "model.safetensors").is_file()
    messages = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True).input_ids == (
        trained.apply_chat_template(messages, add_generation_prompt=True).input_ids
    )


def test_an_adapter_is_folded_in(chat_dir, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(chat_dir)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(chat_dir).save_pretrained(tmp_path / "adapter")
    out = tmp_path / "merged"
    assert main([str(tmp_path / "adapter"), "--to", "vllm", "--out", str(out)]) == 0
    assert not (out / "adapter_config.json").exists()
    ids = torch.arange(20).reshape(1, 20)
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(out)(ids).logits
        torch.testing.assert_close(merged, adapted.eval()(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["chatml", "chatml_sep"])
def test_templates_that_write_turn_after_turn_are_taken(model_dir, name):
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    apply_template(tokenizer, load_template(name))
    turns = turns_of(tokenizer, plain_jinja(tokenizer))
    assert turns.begin == "" and turns.opens["user"].startswith("<|im_start|>user")
    for messages in proof_conversations():
        data = {"Messages": [{"Role": each["role"], "Content": each["content"]} for each in messages]}
        assert go_template.render(turns.as_go(), data) == render(tokenizer, tokenizer.chat_template, messages, True)


def test_a_beginning_of_the_text_is_kept_apart_from_the_first_turn(model_dir):
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    apply_template(tokenizer, load_template("chatml"))
    tokenizer.chat_template = "<s>" + re.sub(r"\{#.*?#\}", "", tokenizer.chat_template, flags=re.S).lstrip()
    turns = turns_of(tokenizer, plain_jinja(tokenizer))
    assert turns.begin == "<s>" and turns.opens["system"] == "<|im_start|>system\n"


class Begins:
    """A tokenizer that writes its beginning before every text."""

    bos_token, bos_token_id, special_tokens_map = "<s>", 1, {"bos_token": "<s>"}

    def __call__(self, text):
        return SimpleNamespace(input_ids=[1, 5])


@pytest.mark.parametrize(
    ("template", "added"), [("{{ bos_token }}{{ messages[0].content }}", False), ("{{ messages }}", True), (None, True)]
)
def test_the_beginning_stands_once(template, added):
    assert gguf_file._needs_bos(Begins(), template) is added


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    "source",
    [
        CHATML.replace("CONTENT", "m.content | trim"),
        CHATML.replace("CONTENT", "m.content.split('</think>')[-1]"),
        "{% if messages[0].role != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}"
        + CHATML.replace("CONTENT", "m.content"),
        "{{ messages | length }}" + CHATML.replace("CONTENT", "m.content"),
    ],
    ids=["trims", "drops reasoning", "adds a system prompt", "counts"],
)
def test_templates_that_do_more_are_refused_by_name(model_dir, source):
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.chat_template = source
    with pytest.raises(TemplateError, match=r"turn after turn.*--to llama\.cpp or --to vllm"):
        turns_of(tokenizer, plain_jinja(tokenizer))


def cut_by(tokenizer, regex: str) -> None:
    from tokenizers import Regex, pre_tokenizers

    cuts = pre_tokenizers.Split(Regex(regex), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cuts, bytes_only])


def test_tokenizers_are_recognised_by_how_they_cut_text(model_dir):
    from tokenizers import pre_tokenizers

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    for regex, name in REGEXES.items():
        cut_by(tokenizer, regex)
        assert pre_tokenizer_of(tokenizer, None) == name and differs(tokenizer, name) is None
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert pre_tokenizer_of(tokenizer, None) == "gpt-2"
    # cuts in its own way, and makes the same tokens of every text
    assert pre_tokenizer_of(load_tokenizer("llmkit.tiny:base"), None) == "qwen2"


def test_a_tokenizer_that_makes_other_tokens_is_refused_with_a_text(model_dir):
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    cut_by(tokenizer, r" ?\p{L}|[^\p{L}]")
    with pytest.raises(ModelError, match=r"no name for that llmkit knows \(qwen2 makes other tokens of .*--pre-token"):
        pre_tokenizer_of(tokenizer, None)
    assert pre_tokenizer_of(tokenizer, "qwen2") == "qwen2"


def test_what_cannot_be_written_is_refused_and_leaves_nothing(model_dir, chat_dir, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    cases = [
        ((model_dir, "--to", "ollama"), "has no chat template"),
        ((chat_dir, "--to", "vllm", "--pre-tokenizer", "qwen2"), "changes nothing with --to vllm"),
    ]
    for words, says in cases:
        assert main([*map(str, words), "--out", str(out)]) == 2
        assert says in capsys.readouterr().err and not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert main([str(chat_dir), "--to", "vllm", "--out", str(out)]) == 2
    assert "is there and not empty" in capsys.readouterr().err and [each.name for each in out.iterdir()] == ["mine.txt"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main([str(chat_dir), "--to", "vllm", "--out", "."]) == RunError.exit_code
    assert "is the current folder" in capsys.readouterr().err
    config = AutoConfig.from_pretrained(chat_dir)
    config.rope_parameters = {**config.rope_parameters, "rope_type": "yarn", "factor": 4.0}
    with pytest.raises(ModelError, match=r"scaled by 'yarn'.*convert_hf_to_gguf"):
        gguf_file._architecture(config)
