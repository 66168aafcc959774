# ruff: noqa: E501 - whole messages in tables
"""Recipes that interrogate: rows by name, splits that must agree, settings that nothing reads, judges, languages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llmkit.artifacts.stagefile import StageFile
from llmkit.errors import RecipeError
from llmkit.plan.make import make
from llmkit.recipe import unread
from llmkit.recipe.knowledge import JudgeSpec, WriterSpec
from llmkit.recipe.load import load
from llmkit.recipe.preference import RankJudgeSpec

RECIPE = """\
run: {name: demo}
model: {name_or_path: org/model}
stages:
  - {name: sft, kind: sft, data: [{path: org/chats}]}
  - {name: probe, kind: interrogate, from: sft, questions: [{path: org/questions}]}
  - {name: other, kind: interrogate, from: sft, questions: [{path: org/more}]}
  - {name: idk, kind: refusals, from: sft, probes: [probe]}
  - {name: honest, kind: sft, from: sft, data: [{from: idk}, {path: org/chats, require_known: {probe: probe, unknown: pretrain}}]}
  - {name: reprobe, kind: interrogate, from: honest, questions: [{from: probe, name: probe}]}
  - {name: again, kind: refusals, from: honest, probes: [probe, reprobe]}
  - {name: dpo, kind: dpo, from: honest, data: [{from: again, name: pairs}]}
  - {name: more, kind: pretrain, from: honest, data: [{from: honest, name: pretrain}]}
evals:
  - {task: honesty, questions: [{from: probe}], baseline: sft}
"""
FILES = "stages.probe.documents=[{path: org/documents}]"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def problems(recipe: Path, *words: str) -> list[str]:
    """What is wrong, without the file and line, or the word of the command line."""
    with pytest.raises(RecipeError) as caught:
        load([recipe], words)
    found = [str(problem).removeprefix("command line: ") for problem in caught.value.problems]
    for word in words:
        found = [text.removeprefix(f"{word}: ") for text in found]
    return [re.sub(r"^\S+recipe\.yaml:\d+: ", "", text) for text in found]


def test_the_recipe_is_right_as_it_stands_and_its_stage_files_read_back(recipe: Path) -> None:
    """A stage file names every setting, read or not."""
    for step in make(load([recipe])).steps:
        file = step.stage_file()
        assert StageFile.model_validate(json.loads(file.model_dump_json(by_alias=True))) == file


def test_an_evaluation_asks_a_probes_held_out_questions(recipe: Path) -> None:
    steps = make(load([recipe])).steps
    asked = {step.name: step.stage.evals[0].questions[0].name for step in steps if step.kind == "evaluate"}
    assert {"eval-probe", "eval-honest", "eval-dpo"} <= asked.keys() and set(asked.values()) == {"heldout"}
    probe = next(step.stage for step in steps if step.name == "reprobe")
    assert probe.questions[0].name == "probe", "asking again asks all"
    named = make(load([recipe], ["evals.0.questions=[{from: probe, name: heldout}]"])).steps
    assert [step.fingerprint for step in named] == [step.fingerprint for step in steps]


HONESTY = "an honesty evaluation asks what no training row does, and of 'probe' that is its 'heldout'; set 'name: heldout', or leave it out"
NONE = "leaves no rows; name an 'interrogate', 'refusals', 'best_of_n' or 'rank' stage, or one whose 'require_known' has 'unknown: pretrain'"
BETWEEN = "put a 'refusals' stage with 'probes: [probe]' between, and read its rows"
LEFT = "'idk' leaves train (conversations), tool_calls (conversations), pairs (pairs), pairs_all (pairs), questions (questions)"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("evals.0.questions.0.name=probe", f"evals.0.questions.0.name: {HONESTY}"),
        ("evals.0.questions.0.name=held", "evals.0.questions.0.name: 'probe' leaves no rows called 'held'; did you mean 'heldout'?"),
        ("evals.0.questions=[{from: idk}]", "evals.0.questions.0.from: an honesty evaluation reads questions, not conversations; 'idk' leaves train (conversations), tool_calls (conversations), pairs (pairs), pairs_all (pairs)"),
        ("evals.0.questions=[{from: idk, name: questions}]", "evals.0.questions.0.name: an honesty evaluation asks what no training row does, and the rows of 'idk' ask these; set 'watched: 0.05' in 'idk', and 'name: watched' here"),
        ("evals.0.questions=[{from: idk, name: watched}]", "evals.0.questions.0.name: 'idk' leaves no rows called 'watched'; have: train, tool_calls, pairs, pairs_all"),
        ("evals.0.questions=[{from: sft}]", f"evals.0.questions.0.from: 'sft' {NONE}"),
        ("stages.honest.data=[{from: idk, name: pairz}]", "stages.4.data.0.name: 'idk' leaves no rows called 'pairz'; did you mean 'pairs'?"),
        ("stages.honest.data=[{from: idk, name: xyz}]", "stages.4.data.0.name: 'idk' leaves no rows called 'xyz'; have: train, tool_calls, pairs, pairs_all, questions"),
        ("stages.honest.data=[{from: idk, name: pairs}]", "stages.4.data.0.name: an 'sft' stage reads conversations, not pairs; leave it out"),
        ("stages.honest.data=[{from: probe}]", f"stages.4.data.0.from: an 'sft' stage reads conversations, not questions; {BETWEEN}"),
        ("stages.honest.data=[{from: sft}]", f"stages.4.data.0.from: 'sft' {NONE}"),
        ("stages.honest.heldout={own: [{from: idk, name: pairz}]}", "stages.4.heldout.own.0.name: 'idk' leaves no rows called 'pairz'; did you mean 'pairs'?"),
        ("stages.dpo.data=[{from: again}]", "stages.7.data.0.from: a 'dpo' stage reads pairs, not conversations; set 'name: pairs'"),
        ("stages.dpo.data=[{from: again, name: tool_calls}]", "stages.7.data.0.name: a 'dpo' stage reads pairs, not conversations; set 'name: pairs'"),
        ("stages.dpo.data=[{from: reprobe}]", f"stages.7.data.0.from: a 'dpo' stage reads pairs, not questions; {BETWEEN.replace('probe]', 'reprobe]')}"),
        ("stages.more.data=[{from: honest, name: gated}]", "stages.8.data.0.name: 'honest' leaves no rows called 'gated'; have: pretrain"),
        ("stages.more.data=[{from: idk}]", f"stages.8.data.0.from: a 'pretrain' stage reads documents, not conversations; {LEFT}"),
        ("stages.reprobe.questions=[{from: probe, name: prob}]", "stages.5.questions.0.name: 'probe' leaves no rows called 'prob'; did you mean 'probe'?"),
        ("stages.reprobe.questions=[{from: idk}]", "stages.5.questions.0.from: an 'interrogate' stage reads questions, not conversations; set 'name: questions'"),
        ("stages.reprobe.documents=[{from: probe}]", "stages.5.documents.0.from: an 'interrogate' stage reads documents, not questions; 'probe' leaves probe (questions), heldout (questions)"),
    ],
)  # fmt: skip
def test_rows_that_are_not_there_or_do_not_fit(recipe: Path, word: str, expected: str) -> None:
    assert expected in problems(recipe, word)


def test_questions_that_are_set_aside_can_be_asked(recipe: Path) -> None:
    assert load([recipe], ["evals.0.questions=[{from: idk, name: watched}]", "stages.idk.watched=0.05"])


def test_what_is_kept_from_training_is_no_row_of_it(recipe: Path) -> None:
    watching = RECIPE.replace("probes: [probe]}", "probes: [probe], watched: 0.05}")

    def practise(source: str, more: str = "") -> None:
        stage = (
            f"  - {{name: practice, kind: grpo, from: honest, data: [{{from: {source}}}], rewards: [exact]{more}}}\n"
        )
        recipe.write_text(watching.replace("evals:\n", f"{stage}evals:\n"))

    for made, name in (("probe", "heldout"), ("idk", "watched")):
        practise(f"{made}, name: {name}")
        said = f"stages.9.data.0.name: '{name}' of '{made}' is kept from training, for evaluation; leave it out, or name it in 'heldout'"
        assert said in problems(recipe)
    practise("probe", ", heldout: {left: [{from: probe, name: heldout}]}")
    assert load([recipe])


def test_templates_make_questions_of_any_rows(recipe: Path) -> None:
    template = '{question: "Who wrote {text}?", answers: "{text}"}'
    assert load([recipe], [f"stages.reprobe.questions=[{{from: idk, name: pairs, templates: [{template}]}}]"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["stages.again.probes=[probe, reprobe, other]", "stages.other.seed=7"], "seed 7, heldout 0.2; there seed 42, heldout 0.2"),
        (["stages.again.probes=[probe, reprobe, other]", "stages.other.heldout=0.3"], "seed 42, heldout 0.3; there seed 42, heldout 0.2"),
        (["evals.0.questions=[{from: other}]", "stages.other.heldout=0.3"], "seed 42, heldout 0.3; there seed 42, heldout 0.2"),
        (["evals.0.questions=[{from: other}]", "stages.probe.heldout=0"], "seed 42, heldout 0.2; there heldout 0"),
        (["stages.other.questions=[{from: probe, name: probe}, {path: org/more}]", "evals.0.questions=[{from: other}]", "stages.other.seed=7"], "seed 7, heldout 0.2; there seed 42, heldout 0.2"),
        (["stages.honest.data=[{from: idk}, {path: org/chats, require_known: other}]", "stages.more.data=[{path: org/texts}]", "stages.other.seed=7"], "seed 7, heldout 0.2; there seed 42, heldout 0.2"),
        (["stages.idk.probes=[other]", "stages.again.probes=[other, reprobe]", "evals.0.questions=[{from: other}]", "stages.other.seed=7"], "seed 7, heldout 0.2; there seed 42, heldout 0.2"),
    ],
)  # fmt: skip
def test_probes_that_meet_hold_out_the_same_entities(recipe: Path, words: list[str], expected: str) -> None:
    what = f"stages.2: holds out other entities than 'probe' ({expected}): what one keeps for evaluation, the other gives to training; give both the same 'seed' and 'heldout'"
    assert problems(recipe, *words) == [what]


@pytest.mark.parametrize(
    "words",
    [
        ["stages.other.seed=7", "stages.other.heldout=0.5"],
        ["stages.again.probes=[probe, reprobe, other]", "stages.other.seed=42", "stages.other.heldout=0.2"],
        ["stages.again.probes=[probe, reprobe, other]", "stages.other.seed=1", "stages.other.heldout=0", "stages.probe.heldout=0"],
        ["stages.reprobe.seed=7"],
    ],
)  # fmt: skip
def test_probes_that_never_meet_or_ask_again_split_as_they_like(recipe: Path, words: list[str]) -> None:
    assert load([recipe], words)


NO_JUDGE = "has no effect with 'by: rules'; leave it out, or set"
NO_DOCUMENTS = "has no effect without 'documents'; leave it out"
TWICE = "{phrasings: ['{question}', 'Say: {question}']}"
NEVER_MAYBE = "can be MaybeKnown, with so few greedy answers to each; set more 'ask.phrasings' or 'ask.num_variants' there, or leave it out"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["stages.probe.writer={by: self}"], [f"stages.1.writer: {NO_DOCUMENTS}"]),
        (["stages.probe.num_snippets=5", "stages.probe.snippet_chars=90"], [f"stages.1.num_snippets: {NO_DOCUMENTS}", f"stages.1.snippet_chars: {NO_DOCUMENTS}"]),
        (["stages.probe.judge={engine: vllm, prompt: a.jinja, timeout: 60, max_undecided: 0.1}"], [f"stages.1.judge.engine: {NO_JUDGE} 'by: model'", f"stages.1.judge.max_undecided: {NO_JUDGE} 'by: model' or 'by: openai'", f"stages.1.judge.prompt: {NO_JUDGE} 'by: model' or 'by: openai'", f"stages.1.judge.timeout: {NO_JUDGE} 'by: openai'"]),
        (["stages.probe.judge={by: self, revision: abc}"], ["stages.1.judge.revision: has no effect with 'by: self'; leave it out, or set 'by: model'"]),
        (["stages.probe.judge={by: self, name_or_path: a/b}"], ["stages.1.judge.name_or_path: has no effect with 'by: self'; leave it out, or set 'by: model' or 'by: openai'"]),
        (["stages.probe.judge={by: openai, name_or_path: m, engine: vllm}"], ["stages.1.judge.engine: has no effect with 'by: openai'; leave it out, or set 'by: model'"]),
        (["stages.probe.judge={by: model, name_or_path: m, base_url: http://h}"], ["stages.1.judge.base_url: has no effect with 'by: model'; leave it out, or set 'by: openai'"]),
        (["evals.0.judge={timeout: 3}"], [f"evals.0.judge.timeout: {NO_JUDGE} 'by: openai'"]),
        ([FILES, "stages.probe.writer={by: templates, num_questions: 2, templates: [{question: 'Who is {n}?', answers: '{n}', match: '(?P<n>x)'}]}"], ["stages.1.writer.num_questions: has no effect with 'by: templates'; leave it out, or set 'by: model' or 'by: openai'"]),
        ([FILES, "stages.probe.writer={concurrency: 2}"], ["stages.1.writer.concurrency: has no effect with 'by: self'; leave it out, or set 'by: openai'"]),
        (["stages.probe.ask={num_samples: 0, temperature: 0.7, top_p: 1}"], ["stages.1.ask.temperature: has no effect with 'num_samples: 0': greedy answers are not sampled; leave it out", "stages.1.ask.top_p: has no effect with 'num_samples: 0': greedy answers are not sampled; leave it out"]),
        (["stages.idk.refusals={texts: [Pass.], tone: plain}"], ["stages.3.refusals.tone: has no effect with 'texts' of your own; leave it out"]),
        (["stages.idk.maybe_known=answer"], [f"stages.3.maybe_known: has no effect: no question of 'probe' {NEVER_MAYBE}"]),
        (["stages.idk.maybe_known=leave_out", "stages.probe.ask={num_samples: 20}"], [f"stages.3.maybe_known: has no effect: no question of 'probe' {NEVER_MAYBE}"]),
        (["stages.again.maybe_known=refuse"], [f"stages.6.maybe_known: has no effect: no question of 'probe' and 'reprobe' {NEVER_MAYBE}"]),
        (["stages.idk.maybe_known=refuse", f"stages.probe.ask={TWICE}", "stages.probe.thresholds={highly_known: 0.5}"], [f"stages.3.maybe_known: has no effect: no question of 'probe' {NEVER_MAYBE}"]),
        (["stages.idk.weakly_known=answer", "stages.probe.ask={num_samples: 0}"], ["stages.3.weakly_known: has no effect: no question of 'probe' can be WeaklyKnown, without sampled answers; set 'ask.num_samples' there, or leave it out"]),
        (["stages.reprobe.heldout=0.3"], ["stages.5.heldout: has no effect: questions of an earlier probe stay on their side; leave it out"]),
    ],
)  # fmt: skip
def test_settings_that_nothing_reads(recipe: Path, words: list[str], expected: list[str]) -> None:
    assert problems(recipe, *words) == expected


def test_every_setting_of_a_judge_or_writer_has_its_readers() -> None:
    """A new setting must be put into `unread._READ`."""
    settings = {*JudgeSpec.model_fields, *WriterSpec.model_fields, *RankJudgeSpec.model_fields} - {"by", "refusals"}
    assert settings == unread._SETTINGS


@pytest.mark.parametrize(
    "words",
    [
        [FILES, "stages.probe.writer={by: self, prompt: a.jinja, max_new_tokens: 9, num_questions: 2}", "stages.probe.num_snippets=3"],
        [FILES, "stages.probe.writer={by: openai, name_or_path: m, base_url: http://h, timeout: 3, concurrency: 2}"],
        ["stages.probe.judge={by: model, name_or_path: m, engine: vllm, revision: abc, prompt: a.jinja, max_undecided: 0.1}"],
        ["stages.probe.judge={by: self, max_new_tokens: 9, refusals: [Pass.]}"],
        ["stages.probe.ask={num_samples: 1, temperature: 0.3}"],
        ["stages.idk.refusals={language: de, tone: formal}"],
        ["stages.idk.maybe_known=answer", f"stages.probe.ask={TWICE}"],
        ["stages.idk.maybe_known=answer", "stages.probe.ask={num_fewshot: 2, num_variants: 3}", "stages.probe.thresholds={highly_known: 0.5}"],
        ["stages.again.maybe_known=answer", f"stages.reprobe.ask={TWICE}"],
        ["stages.idk.weakly_known=answer"],
        ["stages.reprobe.questions=[{from: probe}, {path: org/more}]", "stages.reprobe.heldout=0.2"],
    ],
)  # fmt: skip
def test_settings_that_are_read(recipe: Path, words: list[str]) -> None:
    assert load([recipe], words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("stages.idk.refusals={language: xx}", ["stages.3.refusals.language: no refusals are shipped for 'xx'; give 'texts' of your own, or one of en, de, fr, es"]),
        ("stages.idk.refusals={texts: {it: [Boh.], de: [Weiss nicht.]}}", ["stages.3.refusals.language: what follows a partial answer is not shipped for 'it'; set 'keep_partial: false', or one of en, de, fr, es"]),
        ("stages.idk.refusals={language: it, texts: [Boh.]}", ["stages.3.refusals.language: what follows a partial answer is not shipped for 'it'; set 'keep_partial: false', or one of en, de, fr, es"]),
    ],
)  # fmt: skip
def test_languages(recipe: Path, words: str, expected: list[str]) -> None:
    assert problems(recipe, words) == expected


def test_own_refusals_may_be_in_any_language_where_no_partial_answer_is_kept(recipe: Path) -> None:
    assert load([recipe], ["stages.idk.refusals={language: it, texts: [Boh.]}", "stages.idk.keep_partial=false"])


def test_an_evaluation_has_one_judge_for_all_models(recipe: Path) -> None:
    (found,) = problems(recipe, "evals.0.judge={by: self}")
    assert found == (
        "evals.0.judge: 'by: self' has every model judge itself, so that before and after cannot be compared; "
        "name one judge for all: 'by: model' with 'name_or_path'"
    )


def test_a_mistake_in_an_evaluation_is_placed(recipe: Path) -> None:
    """An evaluation is a member of a union; its key may be called as its tag."""
    assert problems(
        recipe, "evals=[{task: honesty, questions: [{path: a/b}], judg: {}}, {task: facts, limmit: 3}]"
    ) == [
        "evals.0.judg: unknown key; did you mean 'judge'?",
        "evals.1.limmit: unknown key; did you mean 'limit'?",
    ]


def test_practice_may_ask_what_the_rows_of_an_earlier_model_ask(recipe: Path) -> None:
    """It scores what its own model answers, whatever was known before."""
    last = "{name: more, kind: pretrain, from: honest, data: [{from: honest, name: pretrain}]}"
    rewards = "rewards: [{name: abstain, args: {t: 0.5}}]"
    practice = f"{{name: more, kind: grpo, from: honest, {rewards}, data: [{{from: idk, name: questions}}]}}"
    assert last in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(last, practice))
    assert make(load([recipe]))
    said = problems(recipe, "stages.more.data=[{from: idk}]", "stages.dpo.data=[{from: idk, name: pairs}]")
    assert [text for text in said if "made from probes of the model of sft" in text] == said
    assert len(said) == 1, "preference pairs of another model's probe"
