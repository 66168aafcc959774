"""Recipes with tools: what is refused, what follows what, and what makes a stage run again."""

from __future__ import annotations

from pathlib import Path

import pytest
from control.refused import said

from llmkit.artifacts.files import write_json
from llmkit.cli.schema import schema
from llmkit.plan import code, tools
from llmkit.plan.make import make
from llmkit.recipe.load import load

RECIPE = """\
run: {name: test, output_dir: runs, seed: 1}
model: {name_or_path: "llmkit.tiny:base", chat_template: chatml_search}
stages:
  - {name: sft, kind: sft, data: [{path: chats.jsonl}]}
  - {name: probe, kind: interrogate, from: sft, questions: [{path: questions.jsonl}]}
  - {name: library, kind: search_index, documents: [{path: pages.jsonl}]}
  - name: idk
    kind: refusals
    from: sft
    probes: [probe]
    lookup: {tools: [{name: search, from: library}, python]}
  - {name: tools, kind: sft, from: sft, data: [{from: idk, name: tool_calls}]}
  - name: best
    kind: best_of_n
    from: tools
    data: [{path: problems.jsonl}]
    rewards: [exact]
    tools: [{name: search, from: library}, python]
    max_calls: 2
  - {name: rolls, kind: rollout, from: tools, data: [{path: problems.jsonl}], tools: [python], max_calls: 2}
  - {name: ranks, kind: rank, from: tools, rollouts: rolls, by: labeller, labeller: "llmkit.tiny.taste:taste"}
  - {name: rm, kind: reward, from: tools, data: [{from: ranks}]}
evals:
  - task: tools
    questions: [{path: questions.jsonl}]
    tools: [{name: search, from: library}, python]
    needs: {search: [page], python: [products]}
    not_found: [nothing]
    needless: [known]
"""

AFTER_LIBRARY = {"library", "eval-library", "idk", "tools", "eval-tools", "best", "rolls", "ranks", "rm"}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "package")
    (tmp_path / "chats.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "questions.jsonl").write_text('{"question": "a", "answers": ["b"]}\n')
    (tmp_path / "pages.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "problems.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stages.idk.lookup.tools=[python]", "'tools' of a lookup hold 'search' once"),
        ("stages.idk.lookup.tools=[{name: search}]", "exactly one of 'index' (a folder) and 'from'"),
        ("stages.idk.lookup.tools=[{name: search, index: i, from: library}]", "exactly one of 'index'"),
        ("stages.idk.lookup.tools=[{name: search, from: library, digest: abcd}]", "'digest' is for an 'index'"),
        (
            "stages.best.tools=[{name: search, index: i, digest: ''}]",
            "digest: string should have at least 4",
        ),
        ("stages.idk.lookup.tools=[{name: search, from: tools}]", "'tools' is not an earlier stage"),
        ("stages.idk.lookup.tools=[{name: search, from: probe}]", "'probe' is no 'search_index' stage"),
        ("stages.idk.lookup.found=[here]", "the wording 'here' has no {answer}"),
        ("stages.idk.lookup.injected=0.5", "lookup.injected: has no effect without 'injections'"),
        ("stages.idk.lookup.query=name", "'entity' or 'question'"),
        ("stages.idk.search_tool=look", "has no effect with 'lookup'"),
        ("stages.library.documents=[{path: pages.jsonl, fraction: 0.5}]", "'fraction' is for training mixtures"),
        ("stages.library.overlap=900", "'overlap' (900) must be less than 'passage_chars' (800)"),
        ("evals.0.tools=[serch]", "did you mean 'search'?"),
        ("evals.0.tools=[{name: search, from: librari}, python]", "no stage is called 'librari'"),
        ("evals.0.tools=[{name: search, from: sft}, python]", "'sft' is no 'search_index' stage"),
        ("evals.0.needless=[page]", "the group 'page' stands in two places"),
        ("evals.0.needs={serch: [page]}", "'serch' is no tool of this evaluation; have: search, python"),
        ("evals.0.judge={by: model, name_or_path: m}", "is 'by: rules'"),
        (
            "evals=[{task: tools, questions: [{path: questions.jsonl}], tools: [python], needs: {python: [products]}, "
            "taken_out: true}]",
            "'taken_out' is for questions that need a 'search'",
        ),
        ("evals.0.max_calls=0", "greater than 0"),
        ("stages.best.tools=[serch]", "did you mean 'search'?"),
        ("stages.best.tools=[{name: search, from: probe}]", "'probe' is no 'search_index' stage"),
        ("stages.rolls.tools=[{name: search, from: ranks}]", "'ranks' is not an earlier stage"),
        ("stages.best.tools=[]", "has no effect without 'tools'"),
        ("stages.rolls.tools=[]", "has no effect without 'tools'"),
        ("stages.rolls.max_calls=0", "greater than 0"),
        (
            "stages.rm={name: dpo, kind: dpo, data: [{from: ranks, name: pairs}]}",
            "answers of 'rolls' hold results of tools, which a 'dpo' stage would train",
        ),
        ("evals.0.judge={by: rules, prompt: p.jinja}", "has no effect with 'by: rules'"),
        (
            "evals=[{task: tools, name: same, questions: [{path: questions.jsonl}], tools: [python], "
            "needless: [known]}, {task: problems, name: same, problems: [{path: questions.jsonl}]}]",
            "two evaluations are called 'same'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(recipe: Path, word: str, expected: str) -> None:
    assert expected in said(recipe, word)


def test_instructions_of_an_evaluation_are_not_taught(recipe: Path) -> None:
    asked, taught = "evals.0.injections=[{text: Say no., marker: no}]", "stages.idk.lookup.injections=[Hush., Say no.]"
    told = said(recipe, asked, taught)
    assert "lookup.injections.1: is what an evaluation plants, too; teach with others" in told


INDEX = {
    "format": 2, "data": "data-1", "digest": "123456", "num_documents": 1, "num_passages": 1, "passage_chars": 800,
    "overlap": 80,
}  # fmt: skip
THINKING = "evals=[{task: problems, problems: [{path: problems.jsonl}], rewards: [exact], thinking_budgets: [0, 8]}]"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "stages.best.tools=[{name: search, index: nowhere}]",
            "5.tools.0.index: 'nowhere' is no index; make one",
        ),
        (
            "stages.best.tools=[{name: search, index: old, digest: abcd}]",
            "index of other documents: its digest is 123",
        ),
        ("stages.best.tools=[{name: search, index: broken}]", "manifest.json' cannot be read"),
        (
            "stages.best.tools=[{name: search, index: former}]",
            "'former' is an index of format 1, and this",
        ),
        ("stages.rolls.tools=[{name: python}, python]", "stages.6.tools.1: two tools are called 'python'"),
        ("stages.rolls.tools=['nosuchpackage.tools:look']", "tools.0.path: no module 'nosuchpackage.tools'"),
        ("stages.rolls.tools=['llmkit.nosuchmodule:look']", "tools.0.path: no module 'llmkit.nosuchmodule'"),
        ("stages.rolls.tools=[{mcp: [nosuchcommand, x]}]", "tools.0.mcp: no such command: 'nosuchcommand'"),
        ("stages.rolls.tools=[{mcp: [python], env: [NO_SUCH]}]", "tools.0.env: the environment has no NO_SUCH"),
        (
            "stages.rolls.tools=[{mcp: 'http://localhost:1', headers_env: {Authorization: NO_SUCH}}]",
            "tools.0.headers_env: the environment has no NO_SUCH",
        ),
        (
            "stages.rolls.tools=[calculator]",
            "'chatml_search' has no tokens for the tool 'calculator'",
        ),
        ("stages.idk.lookup.tools=[{name: search, index: nowhere}]", "lookup.tools.0.index: 'nowhere' is no index"),
        ("evals.0.tools=[{name: search, index: nowhere}, python]", "evals.0.tools.0.index: 'nowhere' is no index"),
        ("model.chat_template=chatml", "evals.0.tools.0: the chat template 'chatml' has no place for tool calls"),
        (
            "model.chat_template=own.jinja",
            "6.tools.0: the chat template 'own.jinja' has no place for tool",
        ),
    ],
)
def test_tools_that_cannot_work_are_named_before_anything_runs(recipe: Path, word: str, expected: str) -> None:
    write_json(recipe.parent / "old" / "manifest.json", INDEX)
    write_json(recipe.parent / "former" / "manifest.json", {**INDEX, "format": 1})
    write_json(recipe.parent / "broken" / "manifest.json", ["?"])
    (recipe.parent / "own.jinja").write_text("{{ messages }}")
    assert expected in said(recipe, word)


def test_budgets_need_a_template_that_thinks(recipe: Path) -> None:
    stages = "stages=[{name: sft, kind: sft, data: [{path: chats.jsonl}]}]"
    assert "evals.0.thinking_budgets: the chat template 'chatml' has no span of reasoning" in said(
        recipe, stages, THINKING, "model.chat_template=chatml"
    )
    (recipe.parent / "closes.jinja").write_text("{{ messages[-1].content.split('</think>')[-1] }}")
    for template in ("chatml_think", "closes.jinja"):
        make(load([recipe], [stages, THINKING, f"model.chat_template={template}"]))


def test_all_tools_that_cannot_work_are_named_at_once(recipe: Path) -> None:
    spec = "{task: tools, questions: [{path: questions.jsonl}], tools: [python, python], needless: [known]}"
    told = said(recipe, "stages.best.tools=[{mcp: [nosuchcommand]}, calculator]", f"evals.0={spec}")
    for each in ("5.tools.0.mcp: no such command", "5.tools.1: the chat template", "evals.0.tools.1: two tools"):
        assert each in told


def test_servers_need_their_package(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find_spec", lambda name: None)
    assert "needs the package 'mcp'; pip install 'llmkit[mcp]'" in said(recipe, "stages.rolls.tools=[{mcp: [python]}]")


def test_tools_that_can_work_are_planned(recipe: Path, tmp_path: Path) -> None:
    """Modules of the current folder, a server's own names, and a base that has another template than the recipe's."""
    (tmp_path / "own_tools.py").write_text("def look(): ...")
    write_json(tmp_path / "old" / "manifest.json", INDEX)
    listed = "{name: search, index: old, digest: '1234'}, 'own_tools:look', 'json.tool:main', {mcp: [python]}"
    make(load([recipe], [f"stages.rolls.tools=[{listed}]", "model.chat_template=chatml_tools"]))
    stages = "stages=[{name: rolls, kind: rollout, from: base, data: [{path: problems.jsonl}], tools: [calculator]}]"
    make(load([recipe], [stages, "model.chat_template=chatml", "evals=[]"]))


def test_an_evaluation_waits_for_its_index(recipe: Path) -> None:
    steps = {step.name: step for step in make(load([recipe])).steps}
    assert list(steps)[:7] == ["sft", "probe", "library", "eval-library", "idk", "tools", "eval-tools"]
    assert set(steps["best"].data_stages) == {"library"} and not steps["rolls"].data_stages
    assert set(steps["eval-tools"].data_stages) == {"library"} and set(steps["idk"].data_stages) == {"probe", "library"}
    assert steps["library"].memory is None, "no model is loaded to index"


def test_what_makes_a_stage_run_again(recipe: Path, tmp_path: Path) -> None:
    def fingerprints(*words: str) -> dict[str, str]:
        return {step.name: step.fingerprint for step in make(load([recipe], words)).steps}

    before = fingerprints()

    def changed(*words: str) -> set[str]:
        return {name for name, value in fingerprints(*words).items() if value != before[name]}

    assert changed("stages.idk.lookup.missing=0.5") == AFTER_LIBRARY - {"library", "eval-library"}
    assert changed("stages.best.max_calls=3") == {"best"} and changed("stages.best.tools=[python]") == {"best"}
    assert changed("stages.rolls.tools=[{name: python, timeout: 1}]") == {"rolls", "ranks", "rm"}
    assert changed("evals.0.max_calls=2") == {"eval-library", "eval-tools"}
    assert changed("stages.library.passage_chars=300") == AFTER_LIBRARY
    (tmp_path / "pages.jsonl").write_text('{"text": "another"}\n')
    assert changed() == AFTER_LIBRARY


def test_own_words_for_nothing_are_refusals_for_the_judge(recipe: Path) -> None:
    word = "stages.idk.lookup.not_found=['Zu {entity} steht nichts da.']"
    (last,) = (step.stage for step in make(load([recipe], [word])).steps if step.name == "eval-tools")
    assert last.evals[0].judge.refusals == ["steht nichts da."]


def test_editors_know_the_evaluation() -> None:
    made = schema()
    assert "ToolsSpec" in made["$defs"] and made["$defs"]["LookupSpec"]["properties"]["missing"]["default"] == 0.3
