"""Imported recipes train; an inline template trains its answers alone, a template without a header finds its stop."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_trial import FOREIGN, run_trial
from transformers import PreTrainedTokenizerBase

from llmkit.chat.template import expand, load_template, with_stop_token
from llmkit.data.formats import convert
from llmkit.errors import TemplateError, UserError
from llmkit.importing.draft import Options
from llmkit.importing.template import UNMARKED, marked
from llmkit.modeling.load import load_tokenizer

ZEPHYR = FOREIGN / "alignment-handbook/zephyr-7b-beta-sft-config_full.yaml"
DPO = FOREIGN / "alignment-handbook/pref_align_scan-dpo-config_zephyr.yaml"
CHATML = "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
SMALLEST = {
    "axolotl/lora-1b": 2e-4,
    "axolotl/qlora-fsdp-70b": 1e-5,
    "llamafactory/llama3_lora_dpo": 5e-6,
    "open-r1/Qwen2.5-1.5B-Instruct-sft": 1e-5,
    "trl/mixture-sft": 2e-5,
}
"""Recipe of another system -> its learning rate."""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("llmkit.tiny:base")


@pytest.mark.parametrize("path", [ZEPHYR, DPO], ids=lambda path: path.stem)
def test_an_imported_recipe_trains(path: Path, tmp_path: Path) -> None:
    manifest = run_trial(tmp_path, path)
    assert manifest.settings["trainer"]["learning_rate"] in (2e-5, 5e-7)
    assert manifest.stop_token == ("<|endoftext|>" if path == ZEPHYR else "<|im_end|>")


@pytest.mark.parametrize("name", SMALLEST)
def test_a_recipe_of_each_other_system_trains(name: str, tmp_path: Path) -> None:
    """All of them: tests/slow/test_import_trials.py."""
    manifest = run_trial(tmp_path, FOREIGN / f"{name}.yaml", Options(num_processes=2 if "fsdp" in name else None))
    trainer, peft = manifest.settings["trainer"], manifest.settings["peft"]
    assert (trainer["max_steps"], trainer["learning_rate"]) == (2, SMALLEST[name])
    assert (peft or {}).get("quantization") == ("nf4" if "qlora" in name else None)


@pytest.mark.parametrize("name", ["axolotl/lora-1b", "llamafactory/llama3_lora_dpo", "llamafactory/llama3_lora_reward"])
def test_conversations_need_the_template_that_the_account_asks_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it has no chat template; set model\.chat_template"):
        run_trial(tmp_path, FOREIGN / f"{name}.yaml", template=None)


def test_marks_are_put_in_where_they_are_proved(tokenizer: PreTrainedTokenizerBase) -> None:
    source, problem = marked(CHATML)
    assert not problem and source.startswith(
        "{#- special_tokens: <|im_start|> <|im_end|>; stop_token: <|im_end|> -#}\n"
    )
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text, spans = expand(tokenizer, source, messages)
    assert text == expand(tokenizer, CHATML, messages)[0]
    assert [text[start:end] for start, end in spans] == ["b<|im_end|>"]


def test_a_template_with_marks_gets_its_header_from_the_file() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% endfor %}"
    header = "{#- special_tokens: <|im_end|>; stop_token: <|im_end|> -#}\n"
    assert marked(source, "<|im_end|>") == (header + source, "")
    assert marked(source) == (source, "") and marked(source, "</s>") == (source, "")


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ m['role'] }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] + eos_token }}",
        "{% for i in range(99999) %}{{ messages[0]['content'] + eos_token }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] * 999999999 + eos_token }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] + eos_token }}{{ m['content'] }}{% endfor %}",
    ],
)
def test_what_cannot_be_proved_is_left_as_it_is(source: str) -> None:
    assert marked(source) == (source, UNMARKED)


def test_a_template_without_a_header_finds_its_stop_or_is_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m.content + eos_token }}{% endfor %}")
    assert with_stop_token(tokenizer, load_template(tmp_path / "own.jinja")).stop_token == "<|endoftext|>"
    (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    with pytest.raises(TemplateError, match="would not learn to stop"):
        with_stop_token(tokenizer, load_template(tmp_path / "own.jinja"))


def test_pairs_of_single_messages_are_taken() -> None:
    """As LLaMA-Factory and axolotl write them."""
    row = {
        "conversations": [{"from": "human", "value": "a"}],
        "chosen": {"from": "gpt", "value": "b"},
        "rejected": {"from": "gpt", "value": "c"},
    }
    columns = {"prompt": "conversations", "chosen": "chosen", "rejected": "rejected"}
    made = convert(row, "preference", columns)
    assert made["prompt"] == [{"role": "user", "content": "a"}]
    assert made["chosen"] == [{"role": "assistant", "content": "b"}]
