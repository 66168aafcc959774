"""Trainer options of a `dpo` stage, read from the installed TRL, and its place in the generated schema; values of all
kinds' options."""

from __future__ import annotations

from typing import Any

import pytest

from llmkit.cli.schema import schema
from llmkit.recipe.trainer_keys import CONFIG_CLASSES, OWNED, check_trainer, declared, resolved_trainer
from llmkit.recipe.trainer_values import _CHOICES, _RANGES, check_values, choices


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


# Values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("temperature", (0, -1, "hot", float("nan"), float("inf"), True, None), (0.1, 1, 2.5)),
        ("top_p", (0, 2, -0.5), (0.1, 1.0)),
        ("min_p", (-0.1, 1.1), (0, 1, None)),
        ("top_k", (-1, 2.5), (0, 50)),
        ("num_generations", (0, 1, 2.0, None), (2, 16)),
        ("num_iterations", (0, 1.5), (1, 3)),
        ("max_completion_length", (0, "64", None), (1, 64)),
        ("generation_batch_size", (0, "64"), (64, None)),
        ("epsilon", (-1,), (0, 0.2)),
        ("beta", (-0.1, "low"), (0, 0.1)),
        ("loss_type", ("foo", ["dapo"], 3), ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")),
        ("scale_rewards", ("foo", None), ("group", "batch", "none", True, False)),
        ("importance_sampling_level", ("x",), ("token", "sequence")),
        ("vllm_mode", ("serve",), ("server", "colocate")),
    ],
)
def test_values_that_a_trainer_cannot_work_with_are_refused(key: str, wrong: Any, right: Any) -> None:
    for value in wrong:
        ((found, what, cure),) = check_values("grpo", {key: value})
        assert found == key and what and cure
    assert not [found for value in right for found in check_values("rlhf_grpo", {key: value})]


def test_errors_of_values_say_what_to_give() -> None:
    assert list(check_values("rloo", {"temperature": 0, "num_generations": 1})) == [
        ("temperature", "is 0", "give a number above 0"),
        ("num_generations", "is 1", "give a whole number, at least 2"),
    ]
    (sigmod,) = check_values("dpo", {"loss_type": ["ipo", "sigmod"]})
    assert sigmod == ("loss_type", "TRL knows no 'sigmod'", "did you mean 'sigmoid'?")
    assert "have: dft, nll" in next(check_values("sft", {"loss_type": "xyz"}))[2].replace("chunked_nll, ", "")


@pytest.mark.parametrize("kind", CONFIG_CLASSES)
def test_choices_are_found_in_the_installed_trl_and_hold_its_defaults(kind: str) -> None:
    options = {key: value for key, value in declared(kind).items() if value is not None}
    for key in set(_CHOICES) & set(options):
        assert options[key] in choices(kind, key)
    assert not list(check_values(kind, options | resolved_trainer(kind, {})))
    assert all(any(key in declared(each) for each in CONFIG_CLASSES) for key in (*_RANGES, *_CHOICES))
