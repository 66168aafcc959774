"""axolotl's options of training whose values have other names, its defaults, and what llmkit has no place for."""

from __future__ import annotations

import math
import re

from llmkit.importing import common
from llmkit.importing.axolotl_keys import DPO, FAMILIES, LISTED, REPORTERS, SWITCHES
from llmkit.importing.draft import Draft, Entry
from llmkit.importing.foreign import as_number
from llmkit.recipe.trainer_keys import PRACTICE

_OPTIMIZERS = {"adamw_hf": "adamw_torch", "paged_adamw": "paged_adamw_32bit"}
_LIGER = re.compile(r"liger_\w+")


def options(draft: Draft) -> None:
    """Options whose values have other names."""
    optimizer = draft.get("optimizer")
    if isinstance(optimizer, str) and optimizer in _OPTIMIZERS:
        draft.set_trainer("optim", _OPTIMIZERS[optimizer], ("optimizer",))
    if draft.get("gradient_checkpointing") in ("unsloth", "offload", "offload_disk"):
        draft.set_trainer("gradient_checkpointing", True, ("gradient_checkpointing",), "without offloading")
    if draft.get("rl") == "ipo":
        draft.stage.setdefault("trainer", {})["loss_type"] = "ipo"
    _pairs(draft)
    if draft.kind == "sft" and draft.get("use_dft") is True:
        draft.set_trainer("loss_type", "dft", ("use_dft",))
    draft.list_absent({"use_dft": "only `sft` has this loss"})
    for key in ("tf32", "torch_compile"):
        if draft.get(key) == "auto":
            draft.listed((key,), "'auto': set it to true in `trainer` where the device and torch can")
    if isinstance(draft.get("activation_offloading"), str):
        draft.set_trainer("activation_offloading", True, ("activation_offloading",), "to main memory")
    per_epoch = draft.get("saves_per_epoch")
    if per_epoch is not None:
        epochs = max(1.0, draft.number("num_epochs", 1))
        share = round(1 / math.ceil(draft.count("saves_per_epoch", 1) * epochs), 4)
        draft.set_trainer("save_steps", share if share < 1 else 0.5, ("saves_per_epoch",), "a share of all steps")
    elif draft.get("save_strategy") is None and draft.get("save_steps") is None:
        draft.set_trainer("save_strategy", "epoch", None, "the default there")
    if draft.get("cosine_min_lr_ratio") is not None:
        draft.set_trainer("lr_scheduler_type", "cosine_with_min_lr", ("lr_scheduler",))
        ratio = {"min_lr_rate": draft.number("cosine_min_lr_ratio", 0)}
        draft.set_trainer("lr_scheduler_kwargs", ratio, ("cosine_min_lr_ratio",))
    for key in [key for key in draft.given if _LIGER.fullmatch(key)]:
        if draft.given[key] is True:
            draft.set_trainer("use_liger_kernel", True, (key,), "liger's own choice of kernels")
    draft.list_families({"liger_": "`use_liger_kernel` chooses the kernels"})
    _reports(draft)


def _pairs(draft: Draft) -> None:
    """Options of losses over pairs."""
    only = "only `dpo` reads it"
    if draft.kind == "dpo":
        for key, name in DPO.items():
            if draft.get(key) is not None:
                draft.set_trainer(name, draft.given[key], (key,))
        if draft.number("rpo_alpha", 0):
            loss = draft.stage.get("trainer", {}).get("loss_type", "sigmoid")
            common.with_answers(draft, "rpo_alpha", loss, draft.number("rpo_alpha", 0))
        only = "0: no loss on the chosen answers alone"
    draft.list_all(dict.fromkeys((*DPO, "rpo_alpha"), only))


def _reports(draft: Draft) -> None:
    """Where curves go. A project of wandb's switches it on."""
    names = [name for key, name in REPORTERS.items() if draft.get(key) is True]
    for key, name in REPORTERS.items():
        if draft.get(key) is True:
            draft.moved((key,), "trainer.report_to", name)
    if draft.get("wandb_project") and draft.get("use_wandb") is None:
        names.append("wandb")
        draft.added.append(Entry("wandb, since it has a project", "mapped", "trainer.report_to"))
    if names:
        draft.stage.setdefault("trainer", {})["report_to"] = names if len(names) > 1 else names[0]
    draft.list_absent(dict.fromkeys(REPORTERS, "set `report_to` in `trainer`"))


def list_absent(draft: Draft) -> None:
    """Features that llmkit does not have, each with what it does instead."""
    for key in SWITCHES:
        if as_number(draft.get(key)) == 1:
            draft.listed((key,), "1: it is off")
    draft.list_absent(LISTED)
    draft.list_families(FAMILIES)


def defaults(draft: Draft) -> None:
    """axolotl's own, where TRL's or llmkit's are others."""
    draft.default_trainer(num_train_epochs=1, lr_scheduler_type="cosine", optim="adamw_torch_fused")
    draft.default_trainer(gradient_checkpointing=False, logging_steps=500)
    if not {"warmup_steps", "warmup_ratio"} & set(draft.given):
        draft.default_trainer(warmup_steps=0.03)
    if draft.kind == "sft":
        draft.default_trainer(packing=False)
        all_tokens = draft.get("train_on_inputs") is True
        why = "it trains everything" if all_tokens else "answers alone are trained"
        if "train_on_inputs" in draft.given:
            draft.set_trainer("assistant_only_loss", not all_tokens, ("train_on_inputs",), why)
        else:
            draft.default_trainer(assistant_only_loss=True)
    draft.list_all({"train_on_inputs": "only `sft` reads it"})
    if draft.kind in PRACTICE:
        draft.default_trainer(mask_truncated_completions=False, disable_dropout=False)
    if draft.kind not in PRACTICE:
        draft.default_trainer(max_length=512)
