"""Recipes that practise: what is accepted, what is refused, with place and cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmkit.errors import RecipeError
from llmkit.plan.make import make
from llmkit.recipe.load import load
from llmkit.recipe.trainer_keys import check_trainer, resolved_trainer

RECIPE = """
run: {name: r}
model: {name_or_path: some/model}
stages:
  - name: sft
    kind: sft
    data: [{path: me/chats}]
  - name: grpo
    kind: grpo
    from: sft
    data: [{path: me/problems}]
    rewards: [exact]
    global_batch_size: 32
    trainer: {num_generations: 8}
  - name: best
    kind: best_of_n
    from: sft
    data: [{path: me/problems}]
    rewards: [exact]
  - name: round
    kind: sft
    from: sft
    data: [{from: best}]
evals:
  - {task: problems, problems: [{path: me/test}]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def problems(recipe: Path, *words: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        make(load([str(recipe)], list(words)))
    return [f"{problem.where}: {problem.what}; {problem.cure}" for problem in caught.value.problems]


def test_a_recipe_that_practises_is_planned(recipe: Path) -> None:
    plan = make(load([str(recipe)]))
    assert [step.name for step in plan.steps] == [
        *("eval-base", "sft", "eval-sft", "grpo", "eval-grpo", "best", "round", "eval-round")
    ]
    by_name = {step.name: step for step in plan.steps}
    assert by_name["round"].parent == "sft", "best_of_n makes no model"
    assert list(by_name["round"].data_stages) == ["best"]
    trainer: dict[str, Any] = by_name["grpo"].stage.trainer
    assert trainer["scale_rewards"] == "none"
    assert trainer["mask_truncated_completions"] is True
    assert "epsilon_high" not in trainer


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("stages.grpo.rewards=[exakt]", "no reward 'exakt'; did you mean 'exact'?"),
        ("stages.grpo.rewards=[{name: exact, args: {pars: strict}}]", "did you mean 'parse'?"),
        ("stages.grpo.rewards=[{name: exact, path: 'a:b'}]", "give exactly one of 'name' and 'path'"),
        ("stages.grpo.rewards=[]", "rewards"),
        ("stages.grpo.rewards=[{name: exact, weight: .nan}]", "rewards.0.weight: input should be a finite number"),
        ("stages.grpo.monitors={entropy: {min: .nan}}", "entropy.min: input should be a finite number"),
        ("stages.grpo.monitors={entropy: {max: .inf}}", "entropy.max: input should be a finite number"),
        ("stages.grpo.rewards=[{name: exact, weight: 0}, {name: random, weight: 0}]", "rewards: every weight is 0"),
        ("stages.grpo.rewards=[{name: regex, args: {pattern: (}}]", "rewards.0.args.pattern: '(' is no regular"),
        (
            "stages.grpo.rewards=[exact, {name: overlong, args: {max_length: 640, cache: 128}}]",
            "rewards.1.args: costs nothing up to 512 tokens, and no answer is longer than 512",
        ),
        ("stages.grpo.rewards=[exact, {name: length, args: {target: 600, slack: 1}}]", "costs nothing up to 600"),
        ("stages.grpo.data.0.phrasing=solve it", "'phrasing' must hold {prompt}"),
        ("stages.grpo.data.0.format=text", "problems have no 'format'"),
        ("stages.grpo.global_batch_size=20", "20 answers are no whole number of groups of 8"),
        ("stages.grpo.trainer.num_generations=1", "trainer.num_generations: is 1; give a whole number, at least 2"),
        ("stages.grpo.trainer.temperature=hot", "trainer.temperature: is 'hot'; give a number above 0"),
        ("stages.grpo.trainer.loss_type=dapa", "trainer.loss_type: TRL knows no 'dapa'; did you mean 'dapo'?"),
        ("stages.grpo.trainer.max_completion_length=null", "max_completion_length: is null; give a whole number"),
        ("stages.grpo.trainer.generation_batch_size=40", "be a multiple or a part of 32"),
        ("stages.grpo.trainer.steps_per_generation=2", "set 'generation_batch_size'"),
        ("stages.grpo.trainer.epsilon_high=0.3", "every answer is trained once"),
        ("stages.grpo.trainer.vllm_mode=server", "has no effect without 'use_vllm'"),
        ("stages.grpo.trainer.use_bias_correction_kl=false", "there is no reference model"),
        ("stages.grpo.trainer.log_completions=true", "rollouts are always kept"),
        ("stages.grpo.trainer.repetition_penalty=1.1", "llmkit's own decoding"),
        ("stages.grpo.trainer.top_k=50", "llmkit's own decoding"),
        ("stages.grpo.trainer.min_p=0.1", "llmkit's own decoding"),
        ("stages.grpo.trainer.max_length=100", "unknown option of GRPOConfig"),
        ("stages.grpo.sampling={filter: {keep: [0.9, 0.1]}}", "a lowest and a highest share"),
        ("stages.grpo.sampling={resample: 1, screen: 8}", "a group has 8 answers: nothing is left to save"),
        ("stages.grpo.sampling={screen: 4}", "'screen' has no effect without 'resample'"),
        ("stages.grpo.monitors={entrpy: {min: 0.05}}", "no curve is called so; did you mean 'entropy'?"),
        ("stages.grpo.monitors={my/curve: {patience: 1}}", "watches nothing; give 'min' or 'max'"),
        ("stages.grpo.monitors={entropy: {min: 10}}", "its range is 10 to 6, so that every value is outside"),
        ("stages.grpo.monitors={kl: {max: 1}}", "no reference model to measure it to; set 'trainer.beta'"),
        ("stages.grpo.measure={every: 0.5}", "measure: has no effect without 'heldout'"),
        ("stages.best.num_kept=9", "is 9, but there are 8 answers to a problem"),
        ("evals.0.temperature=0.5", "has no effect with 'num_samples: 0'"),
        ("evals.0.top_p=0.5", "has no effect with 'num_samples: 0'"),
        ("evals.0.rewards=[exakt]", "no reward 'exakt'"),
        ("evals.0.thinking_budgets=[8, 8]", "'thinking_budgets' names a budget twice"),
        (
            "evals.0={task: problems, problems: [{path: a}], prefill: A, thinking_budgets: [8]}",
            "no place beside 'prefill'",
        ),
        ("evals.0.raw_phrasing=solve", "'raw_phrasing' must hold {prompt}"),
        ("stages.round.data.0.name=attempts", "reads conversations, not rollouts"),
    ],
)
def test_what_cannot_be_is_refused(recipe: Path, word: str, said: str) -> None:
    assert said in "\n".join(problems(recipe, word))


@pytest.mark.parametrize(
    "words",
    [
        ["stages.grpo.monitors={rewards/exact/mean: {min: 0.1}, my/curve: {max: 1}, clip_ratio/low_mean: {max: 0.1}}"],
        ["stages.grpo.monitors={entropy: {action: stop}, kl: {max: 2}}", "stages.grpo.trainer.beta=0.1"],
        ["stages.grpo.measure={every: 0.5}", "stages.grpo.heldout={test: [{path: me/test}]}"],
        ["evals.0.temperature=0.5", "evals.0.num_samples=4"],
        ["stages.best.num_kept=8"],
        ["stages.grpo.rewards=[exact, {name: overlong, weight: 0, args: {max_length: 639, cache: 128}}]"],
    ],
)
def test_what_has_a_reader_is_accepted(recipe: Path, words: list[str]) -> None:
    make(load([str(recipe)], words))


def test_limits_are_complete_in_the_plan(recipe: Path) -> None:
    """A worker cannot tell what its stage file says from what the recipe left out."""
    plan = make(load([str(recipe)], ["stages.grpo.monitors={entropy: {min: 0.05, action: stop}}"]))
    (step,) = [step for step in plan.steps if step.name == "grpo"]
    (limits,) = step.stage.monitors.values()
    assert (limits.min, limits.max, limits.action, limits.patience) == (0.05, 6.0, "stop", 3)


@pytest.mark.parametrize(("action", "is_changed"), [("warn", False), ("stop", True)])
def test_how_often_is_logged_counts_where_a_monitor_ends_the_stage(recipe: Path, action: str, is_changed: bool) -> None:
    def prints(*words: str) -> list[str]:
        word = f"stages.grpo.monitors={{entropy: {{action: {action}}}}}"
        return [step.fingerprint for step in make(load([str(recipe)], [word, *words])).steps]

    assert (prints() != prints("stages.grpo.trainer.logging_steps=3")) == is_changed


ABSTAIN = [
    "stages.grpo.rewards=[exact, {name: abstain, args: {t: 0.5}}]",
    "stages.best.rewards=[{name: abstain, args: {t: 0.5, refusals: [Pass.]}}]",
    "evals.0.rewards=[{name: abstain, args: {t: 0.5}}]",
]
OWN_TEXTS = """\
stages:
  - {name: probe, kind: interrogate, from: sft, questions: [{path: me/questions}]}
  - {name: idk, kind: refusals, from: sft, probes: [probe], refusals: {texts: [No idea about that one.]}}
"""


def test_rewards_know_the_refusals_of_the_recipe(recipe: Path) -> None:
    """Else practice would unlearn the words that the stage before it has taught."""
    overlay = recipe.with_name("own.yaml")
    overlay.write_text(OWN_TEXTS)

    def planned(*files: Path) -> dict[str, Any]:
        return {step.name: step for step in make(load(list(files), ABSTAIN)).steps}

    own = planned(recipe, overlay)
    assert [reward.args for reward in own["grpo"].stage.rewards] == [
        {},
        {"t": 0.5, "refusals": ["No idea about that one."]},
    ]
    assert own["best"].stage.rewards[0].args["refusals"] == ["Pass."]
    assert own["eval-grpo"].stage.evals[0].rewards[0].args["refusals"] == ["No idea about that one."]
    plain = planned(recipe)
    assert plain["grpo"].fingerprint != own["grpo"].fingerprint
    assert plain["best"].fingerprint == own["best"].fingerprint


def test_sharded_weights_cannot_be_resampled_from(recipe: Path) -> None:
    words = ["stages.grpo.launch={accelerate: zero3, num_processes: 2}", "stages.grpo.sampling={resample: 2}"]
    assert "cannot ask a model whose weights are sharded" in "\n".join(problems(recipe, *words))


@pytest.mark.parametrize(
    ("option", "is_refused"), [("vllm_mode: server", True), ("vllm_tensor_parallel_size: 2", True), ("top_k: 5", False)]
)
def test_processes_that_share_a_vllm_cannot_replace_groups(recipe: Path, option: str, is_refused: bool) -> None:
    words = [
        "stages.grpo.launch={accelerate: ddp, num_processes: 2}",
        "stages.grpo.sampling={resample: 2}",
        f"stages.grpo.trainer={{num_generations: 4, use_vllm: true, {option}}}",
    ]
    said = "\n".join(problems(recipe, *words)) if is_refused else ""
    assert ("a vLLM that they share" in said) == is_refused
    if not is_refused:
        make(load([str(recipe)], words))


def test_two_evaluations_need_two_names(recipe: Path) -> None:
    word = "evals=[{task: problems, problems: [{path: a/b}]}, {task: problems, problems: [{path: c/d}]}]"
    assert "two evaluations are called 'problems'" in "\n".join(problems(recipe, word))


def test_short_rewards_are_names_or_paths(recipe: Path) -> None:
    loaded = load([str(recipe)], ["stages.grpo.rewards=[exact, my.rewards:score]"])
    first, second = loaded.recipe.stages[1].rewards  # type: ignore[union-attr]
    assert (first.name, second.path, second.label) == ("exact", "my.rewards:score", "score")


def test_clip_higher_is_set_where_it_acts() -> None:
    assert resolved_trainer("grpo", {"num_iterations": 2})["epsilon_high"] == 0.28
    assert resolved_trainer("grpo", {"generation_batch_size": 64})["epsilon_high"] == 0.28
    assert "epsilon_high" not in resolved_trainer("grpo", {})
    assert not list(check_trainer("grpo", {"num_iterations": 2, "epsilon": 0.1}))


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_every_default_is_an_option_of_the_trainer(kind: str) -> None:
    from llmkit.recipe.trainer_keys import declared

    assert set(resolved_trainer(kind, {})) <= set(declared(kind))


def test_a_change_of_a_reward_runs_the_stage_again(recipe: Path) -> None:
    def prints(*words: str) -> dict[str, str]:
        return {step.name: step.fingerprint for step in make(load([str(recipe)], list(words))).steps}

    plain = prints()
    changed = prints("stages.grpo.rewards=[{name: exact, weight: 2.0}]")
    assert {name for name in plain if plain[name] != changed[name]} == {"grpo", "eval-grpo"}
    measured = prints("evals.0.num_samples=4")
    assert {name for name in plain if plain[name] != measured[name]} == {
        *("eval-base", "eval-sft", "eval-grpo", "eval-round")
    }
