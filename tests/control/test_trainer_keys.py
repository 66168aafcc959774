"""Trainer options of a `dpo` stage, read from the installed TRL, and its place in the generated schema."""

from __future__ import annotations

import pytest

from llmkit.cli.schema import schema
from llmkit.recipe.trainer_keys import OWNED, check_trainer, declared, resolved_trainer


def problems(**trainer: object) -> dict[str, tuple[str, str]]:
    return {key: (what, cure) for key, what, cure in check_trainer("dpo", trainer)}


def test_dpo_takes_all_options_of_its_own_trainer() -> None:
    options = declared("dpo")
    assert options["beta"] == 0.1 and options["learning_rate"] == 1e-6 and options["max_length"] == 1024
    assert options["gradient_checkpointing"] is True, "TRL's defaults lie over those of transformers"
    own = ("beta", "loss_type", "loss_weights", "ld_alpha", "f_divergence_type", "label_smoothing", "use_weighting")
    assert not problems(**dict.fromkeys((*own, "sync_ref_model", "precompute_ref_log_probs", "optim", "warmup_steps")))


@pytest.mark.parametrize("key", ["seed", "padding_free", "truncation_mode", "model_init_kwargs", "eval_strategy"])
def test_dpo_refuses_what_llmkit_owns(key: str) -> None:
    assert problems(**{key: 1}) == {key: ("is set by llmkit", OWNED[key])}


def test_dpo_refuses_options_of_other_trainers_and_those_without_effect() -> None:
    found = problems(packing=True, betta=0.2, label_smoothing_factor=0.1)
    assert found["packing"][0] == "unknown option of DPOConfig"
    assert found["betta"] == ("unknown option of DPOConfig", "did you mean 'beta'?")
    assert found["label_smoothing_factor"][1] == "did you mean 'label_smoothing'?"
    assert not list(check_trainer("sft", {"label_smoothing_factor": 0.1}))


def test_defaults_of_dpo_are_upstreams_but_for_checkpoints() -> None:
    assert resolved_trainer("dpo", {"beta": 0.3}) == {"save_steps": 0.1, "save_total_limit": 2, "beta": 0.3}


def test_the_schema_knows_dpo() -> None:
    trainer = schema()["$defs"]["DpoStage"]["properties"]["trainer"]
    assert trainer["additionalProperties"] is False and trainer["properties"]["beta"]["default"] == 0.1
    assert "packing" not in trainer["properties"] and "label_smoothing_factor" not in trainer["properties"]


def test_the_schema_tells_evaluations_and_gates_as_the_recipe_does() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())

    def is_valid(*evals: object, gate: object = None) -> bool:
        data = [{"path": "x", "require_known": gate}]
        stage = {"kind": "sft", "data": data}
        return validator.is_valid({"run": {"name": "x"}, "stages": [stage], "evals": list(evals)})

    honesty = {"task": "honesty", "questions": [{"path": "q.jsonl"}]}
    assert is_valid("facts", {"task": "facts", "limit": 3}, honesty)
    assert not is_valid("honesty") and not is_valid({"task": "honesty"}), "honesty needs its questions"
    assert not is_valid({**honesty, "limit": 3}) and not is_valid({"task": "facts", "questions": []})
    assert is_valid(gate="probe") and is_valid(gate={"probe": "p"}) and not is_valid(gate=3)


def test_dpo_refuses_options_that_another_one_must_wake() -> None:
    assert problems(label_smoothing=0.1)["label_smoothing"] == (
        "has no effect without 'loss_type'",
        "set loss_type: robust or exo_pair or aot or aot_unpaired",
    )
    assert problems(loss_type="sigmoid", label_smoothing=0.1) and problems(loss_type=["ipo", "sft"], discopop_tau=0.1)
    assert not problems(loss_type="robust", label_smoothing=0.1) and not problems(
        loss_type=["sft", "exo_pair"], label_smoothing=0.1
    )
    assert problems(ref_model_sync_steps=2)["ref_model_sync_steps"][1] == "set sync_ref_model: true"
    assert not problems(sync_ref_model=True, ref_model_sync_steps=2, ref_model_mixup_alpha=0.5)
