"""Every recipe of alignment-handbook, axolotl, LLaMA-Factory, open-r1 and TRL, imported, trains for two steps on the
embedded model, or says why it cannot.

Four-bit weights and eight-bit optimizers stay as the recipes have them: bitsandbytes computes both on a CPU. What is
changed is what a CPU lacks: bfloat16, TF32, flash attention, Liger's kernels, vLLM and several processes; rewards of
people's own packages become `exact`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from foreign_trial import FOREIGN, run_trial

from llmkit.errors import UserError
from llmkit.importing.draft import Options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FILES = sorted(FOREIGN.glob("*/*.yaml"))
SYSTEM = "it adds a system prompt that no one wrote"
CANNOT = {
    "zephyr-141b-A35b-orpo-config_full": "is for orpo: ORPO",
    "zephyr-7b-gemma-sft-config_full": "the first turn renders differently once a second one follows",
    "smollm2-sft-config": SYSTEM,
    "smollm2-sft-config_smol": SYSTEM,
    "qlora-1b-kto": "is for kto: KTO",
    "llama3_lora_kto": "is for kto: KTO",
    "llama3_lora_ppo": "is for ppo: PPO",
    "Qwen2.5-Coder-7B-codeforces-grpo": "llmkit has none of these rewards: cf_code, code_format",
    "mtp_config": "lerning_rate: unknown key",
}
"""Recipe -> what it says."""
SAID = {
    "example_config": Options(stage="sft"),
    "mtp_config": Options(stage="sft"),
    "fft-8b-liger-fsdp": Options(num_processes=2),
    "qlora-fsdp-70b": Options(num_processes=2),
    "llama3_full_sft_ds3": Options(num_processes=2),
}
"""Recipe -> what a person says who imports it."""
AXOLOTL = "base_model: a/b\nlearning_rate: 1e-5\n"
NAMED = "model_name_or_path: a/b\ndataset_name: c/d\nlearning_rate: 1e-5\n"
NO_FILE = {
    "axolotl-completion": f"{AXOLOTL}datasets: [{{path: c/d, type: completion, field: body}}]\n",
    "axolotl-pretrain": f"{AXOLOTL}pretraining_dataset: c/d\nadapter: lora\n",
    "trl-dpo": f"{NAMED}use_peft: true\nload_in_4bit: true\n",
    "trl-reward": f"{NAMED}center_rewards_coefficient: 0.01\n",
    "trl-rloo": f"{NAMED}reward_funcs: accuracy_reward\n",
}
"""Ways to train of which there is no file: name, its stage in TRL last -> a recipe."""


def check(tmp_path: Path, path: Path) -> None:
    """Two steps were made with the file's own learning rate, and in 4 bits where it says so."""
    manifest, given = run_trial(tmp_path, path, SAID.get(path.stem)), yaml.safe_load(path.read_text(encoding="utf-8"))
    trainer, peft = manifest.settings["trainer"], manifest.settings["peft"]
    assert trainer["max_steps"] == 2
    assert "learning_rate" not in given or trainer["learning_rate"] == float(given["learning_rate"])
    assert (peft is not None and peft["quantization"] == "nf4") == (given.get("load_in_4bit") is True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_trial(path: Path, tmp_path: Path) -> None:
    if path.stem in CANNOT:
        with pytest.raises(UserError, match=CANNOT[path.stem]):
            run_trial(tmp_path, path, SAID.get(path.stem))
    else:
        check(tmp_path, path)


@pytest.mark.parametrize("name", NO_FILE)
def test_a_trial_of_what_no_file_is_for(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(NO_FILE[name])
    check(tmp_path, path)


def test_what_cannot_run_is_there() -> None:
    assert set(CANNOT) | set(SAID) <= {path.stem for path in FILES}
