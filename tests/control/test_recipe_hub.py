"""`hub`, `ship` and stages of kind `push`: what is refused before anything runs, and where a push stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmkit.artifacts.rundir import RunDir
from llmkit.artifacts.shipped import shipped
from llmkit.errors import RecipeError
from llmkit.launch.execute import write_recipe
from llmkit.plan.make import make
from llmkit.recipe.hub import holds
from llmkit.recipe.load import load

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz0123"
RECIPE = """\
run: {name: a, output_dir: OUTPUT}
model: {name_or_path: "llmkit.tiny:base", chat_template: chatml}
stages:
  - {name: sft, kind: sft, data: [{path: "llmkit.tiny.sources:faq"}]}
  - {name: publish, kind: push, from: sft}
evals: [facts_known, {task: honesty, questions: [{path: "llmkit.tiny.questions:honesty"}]}, {task: gsm8k, limit: 3}]
"""
HUB = "hub: {repo_id: me/x}\n"


def plan(folder: Path, more: str, *words: str) -> Any:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.replace("OUTPUT", str(folder)) + more)
    return make(load([path], words))


def test_bars_are_read_in_both_forms_and_written_in_one(tmp_path: Path):
    bars = "ship: {facts_known.accuracy: '>=0.95', honesty: {hallucination_unseen: ' < .05', refused_rare_1: '> 0'}}\n"
    made = plan(tmp_path, HUB + bars + "", "ship.gsm8k={'exact_match,strict-match': '>= 1e-1'}")
    stage = made.steps[-1].stage
    assert stage.ship == {
        "facts_known": {"accuracy": ">= 0.95"},
        "honesty": {"hallucination_unseen": "< .05", "refused_rare_1": "> 0"},
        "gsm8k": {"exact_match,strict-match": ">= 1e-1"},
    }
    assert stage.hub.repo_id == "me/x" and stage.hub.private

    write_recipe(made.run_dir.recipe, load([tmp_path / "recipe.yaml"]).recipe)
    assert load([made.run_dir.recipe]).recipe.ship["facts_known"] == {"accuracy": ">= 0.95"}


OWN = """\
evals:
  - {task: identity}
  - {task: tools, questions: [{path: q.jsonl}], tools: [python], needless: [known]}
  - {task: reversal, questions: [{path: q.jsonl}]}
  - {task: jailbreak, unsafe: [{path: u.jsonl}], safe: [{path: u.jsonl}]}
  - {task: problems, problems: [{path: "llmkit.tiny.sources:problems"}]}
  - {task: preference, prompts: [{path: "llmkit.tiny.sources:jokes"}], labeller: "llmkit.tiny.taste:taste"}
"""


def test_bars_on_every_evaluation_of_llmkits_own(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    recipe = RECIPE.replace("OUTPUT", str(tmp_path)).partition("evals:")[0] + HUB + OWN
    recipe += "identity: {name: Nova, maker: us}\n"
    bars = {
        "identity": {"accuracy": "> 0.5", "persona_accuracy": "> 0", "accuracy, kind maker": "> 0"},
        **{task: {"any": "> 0"} for task in ("tools", "reversal", "jailbreak", "problems", "preference")},
    }
    rows = dict.fromkeys(("question", "answers", "forward", "forward_answers", "backward", "backward_answers"), "a")
    for name in "qu":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(rows) + "\n")
        recipe = recipe.replace(f"{{path: {name}.jsonl}}", f"{{path: {tmp_path}/{name}.jsonl}}")
    path.write_text(recipe.replace("chat_template: chatml}", "chat_template: chatml_tools}"))
    assert make(load([path], [f"ship={json.dumps(bars)}"])).steps
    with pytest.raises(RecipeError, match="'identity' has no metric 'right'"):
        make(load([path], ["ship={identity.right: '> 0.5'}"]))


def test_a_judge_and_a_file_of_rankings_have_licences(tmp_path: Path):
    judged = "questions: [{path: 'llmkit.tiny.questions:honesty'}], judge: {by: model, name_or_path: you/judge}}"
    evals = f"evals: [{{task: honesty, {judged}]\n"
    more = "  - {name: asked, kind: rollout, from: sft, data: [{path: 'llmkit.tiny.sources:jokes'}]}\n"
    more += "  - {name: ranked, kind: rank, from: sft, rollouts: asked, by: file, path: ranks.jsonl}\n"
    stated = "hub: {repo_id: me/x, licenses: {you/judge: mit, ranks.jsonl: cc-by-4.0}}\n"
    path = tmp_path / "recipe.yaml"
    stages = RECIPE.replace("OUTPUT", str(tmp_path)).partition("evals:")[0] + more
    path.write_text(stages + evals + stated)
    assert make(load([path])).steps[-1].stage.name == "ranked"
    path.write_text(stages + stated)
    with pytest.raises(RecipeError, match="you/judge: is no source"):
        make(load([path]))


@pytest.mark.parametrize(
    ("bar", "value", "reached"),
    [
        (">= 0.95", 0.95, True),
        ("> 0.95", 0.95, False),
        ("<= 0", 0.0, True),
        ("< 1", 1.5, False),
        (">= 0", float("nan"), False),
    ],
)
def test_a_bar(bar: str, value: float, reached: bool):
    assert holds(bar, value) is reached


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "stages.1: does not say where to publish"),
        (
            HUB + "ship: {facts_knwn.accuracy: '> 0'}",
            "no evaluation is called 'facts_knwn'; did you mean 'facts_known'?",
        ),
        (HUB + "ship: {facts_known.acuracy: '> 0'}", "'facts_known' has no metric 'acuracy'; did you mean 'accuracy'?"),
        (HUB + "ship: {honesty.halucination_unseen: '> 0'}", "did you mean 'hallucination_unseen'?"),
        (HUB + "ship: {facts_known.accuracy: 0.95}", "write a comparison and a number"),
        (HUB + "ship: {facts_known.accuracy: '=> 0.95'}", "write a comparison and a number"),
        (HUB + "ship: {facts_known: '> 0.95'}", "ship.facts_known"),
        ("hub: {repo_id: me}", "'me' is no repository"),
        ("hub: {repo_id: me/x, tag: a b}", "cannot name a branch or tag"),
        ("hub: {repo_id: me/x, privat: true}", "did you mean 'private'?"),
        ("hub: {repo_id: me/x, license: ''}", "is blank: name a licence, such as apache-2.0"),
        ("hub: {repo_id: me/x, language: [en, Hungarian]}", "'Hungarian' is no code of a language"),
        ("hub: {repo_id: me/x, licenses: {'llmkit.tiny:bas': mit}}", "did you mean 'llmkit.tiny:base'?"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(tmp_path: Path, more: str, said: str):
    with pytest.raises(RecipeError) as caught:
        plan(tmp_path, more)
    assert said in str(caught.value), caught.value


def test_the_base_model_is_not_published(tmp_path: Path):
    with pytest.raises(RecipeError, match="would publish the base model"):
        plan(tmp_path, HUB, "stages.publish.from=base")


@pytest.mark.parametrize(
    "word",
    [
        f"hub.repo_id={TOKEN}",
        f"hub.token={TOKEN}",
        f"stages.sft.data=[{{path: 'hf://me:{TOKEN}@datasets/x/y'}}]",
        "stages.sft.data=[{path: 'https://anna:geheim-und-lang@example.org/x.jsonl'}]",
        f"stages.sft.launch.env={{HF_TOKEN: {TOKEN}}}",
        f"run.seed={TOKEN}",
        f"{TOKEN}=1",
    ],
)
def test_a_secret_in_a_recipe_is_refused_and_not_repeated(tmp_path: Path, word: str):
    with pytest.raises(RecipeError) as caught:
        plan(tmp_path, HUB, word)
    assert "holds a" in str(caught.value)
    assert TOKEN not in str(caught.value) and "geheim" not in str(caught.value)


def test_a_token_from_the_environment_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINE", TOKEN)
    with pytest.raises(RecipeError) as caught:
        plan(tmp_path, HUB + "prompts: ['${MINE}']\n")
    assert "prompts.0" in str(caught.value) and TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["tiny/assistant", "tiny/rlhf", "tiny/jokes", "qwen3-0.6b/rlhf", "llama-3.1-8b/honest"]
)
def test_a_resolved_recipe_is_the_recipe_again(tmp_path: Path, name: str):
    recipe = load([shipped("recipes") / f"{name}.yaml"]).recipe
    write_recipe(RunDir(tmp_path).recipe, recipe)
    assert load([tmp_path / "recipe.yaml"]).recipe == recipe


def test_a_push_follows_all_that_it_tells_of(tmp_path: Path):
    made = plan(tmp_path, HUB)
    names = [step.name for step in made.steps]
    assert names == ["eval-base", "sft", "eval-sft", "publish"]
    step = made.steps[-1]
    assert step.parent == "sft" and {*step.data_stages} == {"eval-base", "sft", "eval-sft"}
    assert step.memory is None and step.stage.launch.accelerate == "cpu/single"
    other = plan(tmp_path, HUB, "stages.sft.global_batch_size=8").steps[-1]
    bars = plan(tmp_path, HUB + "ship: {facts_known.accuracy: '> 0'}").steps[-1]
    assert len({step.fingerprint, other.fingerprint, bars.fingerprint}) == 3
