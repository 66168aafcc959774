"""`llmkit rewards`, `llmkit rewards check` and `llmkit show` of a stage that practises."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llmkit.cli.rewards import list_rewards
from llmkit.recipe.reward_keys import names, options
from llmkit.rewards.check import check
from llmkit.stages import rewards_check, show
from llmkit.stages.problems import problems_of as of

RECIPE = """
run: {name: r}
model: {name_or_path: MODEL}
stages:
  - name: practice
    kind: grpo
    data: [{path: PROBLEMS, phrasing: "Solve: {prompt}"}]
    rewards: [exact]
  - {name: form, kind: grpo, data: [{path: PROBLEMS}], rewards: [{name: length, args: {target: 5, slack: 5}}]}
"""


OTHERS = [
    f"  - {{name: {name}, kind: best_of_n, rewards: [{reward}],\n"
    f"     data: [{{path: SAME, phrasing: 'Solve: {{prompt}}'{rows}}}]}}\n"
    for name, rows, reward in (
        ("again", "", "exact"),
        ("heavier", "", "{name: exact, weight: 2.0}"),
        ("strict", "", "{name: exact, args: {parse: strict}}"),
        ("fewer", ", num_rows: 4", "exact"),
    )
]


@pytest.fixture
def recipe(tmp_path: Path, model_dir: Path) -> Path:
    rows = [
        {"prompt": f"What is {i} plus 3?", "solution": f"It is easy. The answer is {i + 3}.", "answer": i + 3}
        for i in range(9)
    ]
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("PROBLEMS", str(problems)).replace("MODEL", str(model_dir)))
    return path


def test_rewards_that_know_right_from_wrong_pass(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rewards_check.main([str(recipe), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    counts = found["practice"]["counts"]["exact"]
    assert (counts["num_gold"], counts["num_gold_failed"], counts["num_wrong"], counts["num_wrong_failed"]) == (
        9,
        0,
        9,
        0,
    )
    assert "form" not in found, "it has no reward on correctness"


def test_what_stages_have_in_common_is_scored_once(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight decides nothing, another option of the reward does, and so do other rows."""
    recipe.write_text(recipe.read_text().replace("    rewards: [exact]\n", "    rewards: [exact]\n" + "".join(OTHERS)))
    text = recipe.read_text().replace("SAME", str(recipe.parent / "problems.jsonl"))
    recipe.write_text(text)
    read, scored = [], []
    monkeypatch.setattr(rewards_check, "problems_of", lambda step, *a, **b: read.append(step.name) or of(step, *a, **b))
    monkeypatch.setattr(rewards_check, "check", lambda *a: scored.append(1) or check(*a))
    found = rewards_check.checked(rewards_check.chosen([str(recipe)], None))
    assert list(found) == ["practice", "again", "heavier", "strict", "fewer", "form"]
    assert read == ["practice", "fewer"] and len(scored) == 3
    assert found["practice"] is found["again"] is found["heavier"] is not found["strict"]
    assert found["fewer"] is not None and found["fewer"].counts["exact"].num_gold == 4


def test_problems_whose_answers_are_wrong_are_shown(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = recipe.parent / "problems.jsonl"
    problems.write_text(problems.read_text().replace('"answer": 5', '"answer": 6'))
    assert rewards_check.main([str(recipe), "--stage", "practice"]) == 2
    said = capsys.readouterr().out
    assert "problems.jsonl:3" in said
    assert "The answer is 5." in said


@pytest.mark.parametrize(
    ("words", "said"), [(["--stage", "other"], "have: practice, form"), (["--stage", "form"], "exact")]
)
def test_nothing_to_check_is_said(
    recipe: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rewards_check.main([str(recipe), *words]) == 2
    assert said in capsys.readouterr().err


def test_what_was_not_tried_is_said(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewards = "[{name: code, when: {answer: 3}}, instructions]"
    recipe.write_text(recipe.read_text().replace("rewards: [exact]", f"rewards: {rewards}"))
    problems = recipe.parent / "problems.jsonl"
    rows = [
        {"prompt": f"Do {i}.", "answer": i, "tests": "f()", "constraints": [{"kind": "lowercase"}]} for i in range(9)
    ]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rewards_check.main([str(recipe), "--stage", "practice"]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "code: no row gives a right answer" in said and "instructions: cannot be tried" in said


def test_every_reward_is_listed_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    list_rewards()
    said = capsys.readouterr().out
    for name in names():
        assert re.search(rf"^{name}\b", said, flags=re.M), name
        assert all(f"{option}:" in said for option in options(name)), name


def test_show_prints_prompts_as_the_model_gets_them(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show.main(["--recipe", str(recipe), "--stage", "practice", "--rows", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("Solve: What is") == 2
    assert said.count("answer: ") == 2
    assert "9 read, 0 rejected" in said
    assert "entropy: at least 0.005, at most 6 (warn)" in said
