"""Training in 4 bits: what is measured before it must not change what is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from llmkit.modeling.load import load_model
from llmkit.modeling.reward_model import load_scorer

BASE = "llmkit.tiny:base"
IDS_BL = torch.randint(5, 2000, (2, 32), generator=torch.Generator().manual_seed(1))
LOADERS = {
    "model": lambda: load_model(BASE, quantization="nf4"),
    "scorer": lambda: load_scorer(BASE, seed=0, quantization="nf4", num_layers=1),
}


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    model.train()
    model(input_ids=IDS_BL).logits.float().square().mean().backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def adapted(load: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", exclude_modules="score", init_lora_weights=False)
    return get_peft_model(load(), config)


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_a_look_at_held_out_rows_does_not_change_the_gradients(load: Callable[[], PreTrainedModel]) -> None:
    fresh, looked = adapted(load), adapted(load)
    looked.eval()
    with torch.no_grad():
        looked(input_ids=IDS_BL)
    first, second = gradients(fresh), gradients(looked)
    assert first.keys() == second.keys() and len(first) > 6
    for name, expected in first.items():
        assert torch.allclose(second[name], expected, rtol=1e-4, atol=1e-7), name
