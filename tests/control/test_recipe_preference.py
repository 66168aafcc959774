"""Recipes with rollouts, rankings, reward models and practice against them: what is refused, and what follows what."""

from __future__ import annotations

from pathlib import Path

import pytest
from control.refused import said

from llmkit.errors import RecipeError
from llmkit.plan.make import make
from llmkit.plan.step import Step
from llmkit.recipe.load import load

RECIPE = """\
run: {name: test, output_dir: runs, seed: 1}
model: {name_or_path: "llmkit.tiny:base", chat_template: chatml}
stages:
  - {name: sft, kind: sft, data: [{path: chats.jsonl}]}
  - {name: answers, kind: rollout, from: sft, data: [{path: prompts.jsonl}]}
  - {name: ranks, kind: rank, from: sft, rollouts: answers, by: labeller, labeller: "llmkit.tiny.taste:taste"}
  - {name: rm, kind: reward, from: sft, data: [{from: ranks}]}
  - {name: gold, kind: reward, from: sft, data: [{path: pairs.jsonl}], seed: 9}
  - name: rlhf
    kind: rlhf
    from: sft
    data: [{path: prompts.jsonl}]
    heldout: {prompts: [{path: heldout.jsonl}]}
    reward_model: rm
    guard: gold
    global_batch_size: 16
    trainer: {num_generations: 8}
evals:
  - task: preference
    prompts: [{path: heldout.jsonl}]
    labeller: "llmkit.tiny.taste:taste"
    reward_model: rm
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("chats", "prompts", "heldout", "pairs"):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "a"}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stages.answers.models=[rm]", "'rm' is not an earlier stage"),
        ("stages.answers.models=[sft]", "'sft' answers already"),
        ("stages.ranks.rollouts=sft", "'sft' is no 'rollout' stage"),
        ("stages.ranks.min_ranked=0.5", "has no effect with 'by: labeller'"),
        ("stages.ranks.batch_size=5", "has no effect with 'by: labeller'"),
        ("stages.ranks.by=human", "'labeller' only fits 'by: labeller'"),
        ("stages.ranks.labeller=null", "'by: labeller' needs 'labeller'"),
        ("stages.ranks.labeller={path: taste}", "package.module:function"),
        ("stages.ranks.labeller={path: 'a:b', num_raters: 3}", "'num_raters' has no effect without 'noise'"),
        ("stages.rm.train=false", "train: is false, and no 'model' says which reward model is meant"),
        ("stages.rm.model={dtype: float32}", "model.name_or_path: is not there"),
        ("stages.rm.peft={merge: false}", "read whole by the stages that use it"),
        ("stages.rm.learning_curve=[0.5, 0.5]", "holds a share twice"),
        ("stages.rm.loss={type: plackett_luce, margin: 1.0}", "'margin' has no effect with 'type: plackett_luce'"),
        ("stages.rm.loss={top: 2}", "'top' has no effect with 'type: pairwise'"),
        ("stages.rm.trainer={label_smoothing_factor: 0.1}", "loss.label_smoothing"),
        ("stages.rm.data=[{from: sft}]", "'sft' leaves no rows"),
        ("stages.rm.data=[{from: answers}]", "reads rankings, not rollouts"),
        ("stages.rm.data=[{from: ranks, name: rankings}]", "reads rankings, not decisions"),
        ("stages.rlhf.reward_model=sft", "'sft' is no 'reward' stage"),
        ("stages.rlhf.reward_model={from: [rm, rm]}", "reward_model.from.1: 'rm' stands here twice"),
        ("evals.0.reward_model={from: [rm, gold, rm]}", "evals.0.reward_model.from.2: 'rm' stands here twice"),
        ("stages.rlhf.guard=rm", "'rm' is what the policy is trained on"),
        ("stages.rlhf.guard={}", "exactly one of 'gold', 'labeller' and 'judge'"),
        ("stages.rlhf.guard={gold: gold, judge: {by: self}}", "exactly one of 'gold', 'labeller' and 'judge'"),
        ("stages.rlhf.guard={judge: {by: self}}", "a policy cannot judge itself"),
        ("stages.rlhf.guard={judge: {by: model, name_or_path: m, engine: vllm}}", "vllm leaves no room for training"),
        ("stages.rlhf.guard={judge: {by: model, name_or_path: m, timeout: 5}}", "guard.judge.timeout: has no effect"),
        ("stages.gold.data=[{from: ranks}]", "trained on the same rankings as 'rm'"),
        ("stages.gold.data=[{from: ranks, num_rows: 900}]", "trained on the same rankings as 'rm'"),
        ("stages.gold.seed=null", "'gold' has a seed of 'rm' (1): their scores begin alike"),
        ("stages.rm.num_models=9", "'gold' has a seed of 'rm' (9)"),
        ("stages.rlhf.guard={labeller: {path: 'a:b', noise: 0.2}}", "only a 'rank' stage has raters who err"),
        ("stages.rlhf.measured_by={path: 'a:b', num_raters: 1}", "measured_by.num_raters: has no effect here"),
        ("evals.0.labeller={path: 'a:b', noise: 0.2}", "only a 'rank' stage has raters who err"),
        ("stages.rlhf.guard={gold: gold, num_prompts: 4}", "num_prompts: input should be greater than or equal to 8"),
        ("stages.rlhf.heldout={}", "the guard looks at held-out prompts"),
        ("stages.rlhf.sampling={resample: 2}", "which a reward model does not say"),
        ("stages.rlhf.reward_when={verifier: taste}", "leaves rows out that nothing else scores"),
        ("stages.rlhf.measure={num_samples: 4}", "has no effect in an 'rlhf' stage"),
        ("stages.rlhf.reward_model={from: rm, uncertainty: 0.5}", "has no effect with 'combine: min'"),
        ("stages.rlhf.global_batch_size=12", "no whole number of groups of 8"),
        ("stages.rlhf.trainer.num_generation=4", "did you mean 'num_generations'?"),
        ("evals.0.reward_model=sft", "'sft' is no 'reward' stage"),
        ("evals.0.gold=gold", "exactly one of 'labeller' and 'gold'"),
        ("evals.0.best_of_n=[64]", "needs 'num_samples: 64'"),
        ("evals.0.baseline=ranks", "'ranks' makes no model"),
    ],
)
def test_what_is_refused(recipe: Path, word: str, expected: str) -> None:
    assert expected in said(recipe, word)


@pytest.mark.parametrize(
    "words",
    [
        ("stages.rlhf.monitors={kl: {max: 2}}",),
        (
            "stages.gold.data=[{from: ranks, split: 'train[50%:]'}]",
            "stages.rm.data=[{from: ranks, split: 'train[:50%]'}]",
        ),
    ],
)
def test_what_is_taken(recipe: Path, words: tuple[str, ...]) -> None:
    """`beta` has a default in `rlhf`; two parts of one stage's rankings are of other prompts."""
    assert make(load([str(recipe)], list(words)))


FINISHED = "{name: rm, kind: reward, from: sft, model: {name_or_path: me/public, dtype: bfloat16}, train: false, data"


def finished(recipe: Path) -> Path:
    recipe.write_text(recipe.read_text().replace("{name: rm, kind: reward, from: sft, data", FINISHED))
    return recipe


@pytest.mark.parametrize(
    "word",
    [
        "loss={margin: 1.0}",
        "num_models=2",
        "num_layers=2",
        "learning_curve=[0.5]",
        "heldout_fraction=0.2",
        "global_batch_size=8",
        "peft={r: 4}",
        "seed=3",
        "trainer={learning_rate: 0.1, max_length: 9}",
    ],
)
def test_what_a_finished_reward_model_has_no_use_for(recipe: Path, word: str) -> None:
    name = "trainer.learning_rate" if word.startswith("trainer") else word.partition("=")[0]
    found = said(finished(recipe), f"stages.rm.{word}")
    assert f"stages.3.{name}: has no effect with 'train: false'" in found
    assert found.count("has no effect") == 1


def test_two_finished_reward_models_are_two(recipe: Path) -> None:
    path = finished(recipe)
    text = path.read_text().replace("{name: gold, kind: reward, from: sft, data", FINISHED.replace("rm", "gold"))
    path.write_text(text.replace(", seed: 9", ""))
    assert "'gold' is the same model as 'rm': it would be fooled with it" in said(path)
    path.write_text(path.read_text().replace("me/public", "me/other", 1))
    assert make(load([str(path)]))


def test_a_reward_model_begins_with_a_model_of_its_own(recipe: Path) -> None:
    def steps(*words: str) -> dict[str, Step]:
        return {step.name: step for step in make(load([str(finished(recipe))], list(words))).steps}

    found = steps()
    assert (found["rm"].input_model, found["rm"].parent, found["rm"].model.dtype) == ("me/public", None, "bfloat16")
    assert (found["rlhf"].model.name_or_path, found["rlhf"].parent) == ("llmkit.tiny:base", "sft")
    assert found["eval-rm"].parent == "sft"
    other = steps("stages.rm.model.revision=main2")
    changed = {name for name in found if found[name].fingerprint != other[name].fingerprint}
    assert changed == {"rm", "eval-rm", "rlhf", "eval-rlhf"}


def test_memory_of_a_finished_reward_model(recipe: Path, tmp_path: Path) -> None:
    """In the type that is asked for, in practice too; one that was trained is held in float32."""
    base = Path(__file__).parents[2] / "llmkit" / "tiny" / "base"
    path = finished(recipe)
    path.write_text(path.read_text().replace("me/public", str(base)))
    found = {step.name: step.memory for step in make(load([str(path)])).steps}
    size = found["rm"].num_parameters
    assert found["rm"].terms == {"weights": 2 * size}
    assert found["rlhf"].terms["reward models"] == (2 + 4) * size


def test_kl_is_not_watched_without_a_reference(recipe: Path) -> None:
    words = ("stages.rlhf.monitors={kl: {max: 2}}", "stages.rlhf.trainer.beta=0.0")
    assert "no reference model to measure it to" in said(recipe, *words)


def test_an_evaluation_waits_for_its_reward_model_and_has_a_baseline_then(recipe: Path) -> None:
    steps = {step.name: step for step in make(load([str(recipe)])).steps}
    assert list(steps) == ["sft", "answers", "ranks", "rm", "eval-rm", "gold", "rlhf", "eval-rlhf"]
    assert steps["eval-rm"].parent == "sft"
    assert steps["ranks"].stage.launch.accelerate == "cpu/single", "a function ranks, no model"
    assert steps["eval-rlhf"].baselines == {"sft": str(steps["eval-rm"].stage_dir.path)}
    assert steps["eval-rlhf"].data_stages == {"rm": str(steps["rm"].stage_dir.path)}


def test_a_reward_model_is_no_policy(recipe: Path) -> None:
    text = recipe.read_text().replace(
        "name: rlhf\n    kind: rlhf\n    from: sft", "name: rlhf\n    kind: rlhf\n    from: rm"
    )
    recipe.write_text(text)
    steps = {step.name: step for step in make(load([str(recipe)])).steps}
    assert steps["rlhf"].parent == "sft"


@pytest.mark.parametrize("guard", ["off", "false", "{gold: gold}", "{labeller: 'llmkit.tiny.taste:taste'}"])
def test_ways_to_write_a_guard(recipe: Path, guard: str) -> None:
    steps = {step.name: step for step in make(load([str(recipe)], [f"stages.rlhf.guard={guard}"])).steps}
    found = steps["rlhf"].stage.guard
    assert (found == "off") == (guard in ("off", "false"))
    assert ("gold" in steps["rlhf"].data_stages) == (guard == "{gold: gold}")


def test_rankings_of_people_are_part_of_the_fingerprint(recipe: Path, tmp_path: Path) -> None:
    words = ("stages.ranks.by=human", "stages.ranks.labeller=null")

    def fingerprints() -> tuple[str, str]:
        steps = {step.name: step for step in make(load([str(recipe)], list(words))).steps}
        return steps["ranks"].fingerprint, steps["rm"].fingerprint

    before = fingerprints()
    folder = tmp_path / "runs" / "test" / "rankings" / "ranks"
    folder.mkdir(parents=True)
    (folder / "rankings.jsonl").write_text("{}\n")
    after = fingerprints()
    assert before[0] != after[0]
    assert before[1] != after[1]


def judged(recipe: Path, judge: str = "{by: self}") -> dict[str, str]:
    """Parts of the fingerprint of a stage that a judge ranks in."""
    words = ["stages.ranks.by=judge", "stages.ranks.labeller=null", f"stages.ranks.judge={judge}"]
    return {step.name: step for step in make(load([str(recipe)], words)).steps}["ranks"].inputs


@pytest.mark.parametrize(
    ("judge", "file"),
    [("{by: self, prompt: own.jinja}", "own.jinja"), ("{by: model, name_or_path: big}", "big/model.safetensors")],
)
def test_a_judge_that_ranks_is_part_of_the_fingerprint(recipe: Path, tmp_path: Path, judge: str, file: str) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / file).write_text("one")
    before = judged(recipe, judge)
    (tmp_path / file).write_text("two two")
    assert judged(recipe, judge) != before


def test_code_that_ranks_is_part_of_the_fingerprint(recipe: Path) -> None:
    by_function = {step.name: step for step in make(load([str(recipe)])).steps}["ranks"].inputs
    own = {name.removeprefix("code of llmkit/") for name in by_function}
    asking = {"stages/asked.py", "stages/engines.py", "generation", "chat", "modeling"}
    assert asking <= {name.removeprefix("code of llmkit/") for name in judged(recipe)}
    assert "rewards" in own and not asking & own


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        ("{by: model}", "'by: model' needs 'name_or_path'"),
        ("{by: self, name_or_path: m}", "judge.name_or_path: has no effect with 'by: self'"),
        ("{by: openai, name_or_path: m, engine: vllm}", "judge.engine: has no effect with 'by: openai'"),
        ("{by: model, name_or_path: m, timeout: 5}", "judge.timeout: has no effect with 'by: model'"),
    ],
)
def test_settings_of_a_judge_that_nothing_reads(recipe: Path, judge: str, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        judged(recipe, judge)
    assert expected in str(caught.value)


def test_a_guards_judge_is_part_of_the_fingerprint(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("one")

    def inputs(judge: str) -> dict[str, str]:
        words = [f"stages.rlhf.guard={{judge: {judge}}}"]
        return {step.name: step for step in make(load([str(recipe)], words)).steps}["rlhf"].inputs

    before = inputs("{by: openai, name_or_path: m, prompt: own.jinja}")
    (tmp_path / "own.jinja").write_text("two two")
    assert inputs("{by: openai, name_or_path: m, prompt: own.jinja}") != before
    assert "code of llmkit/stages/rank_judge.py" in before


def test_the_stages_own_model_judges_with_the_judges_engine(recipe: Path) -> None:
    assert judged(recipe, "{by: self, engine: continuous, prompt: own.jinja, max_undecided: 0.1}")


def test_the_algorithm_decides_which_options_there_are(recipe: Path) -> None:
    assert "unknown option" in said(recipe, "stages.rlhf.algorithm=rloo", "stages.rlhf.trainer.scale_rewards=none")
    assert make(load([str(recipe)], ["stages.rlhf.trainer.scale_rewards=none"]))
