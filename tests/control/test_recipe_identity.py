"""Recipes that say who a model is: what is refused, filled in and done again, and what the report shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from control.refused import said_of_change
from control.report_runs import page_of
from jsonschema import Draft202012Validator

from llmkit.artifacts.manifest import EvalRow, Manifest, write_manifest
from llmkit.artifacts.rundir import RunDir
from llmkit.cli.schema import schema
from llmkit.errors import RecipeError
from llmkit.plan.make import make
from llmkit.recipe.load import load
from llmkit.report.collect import collect
from llmkit.report.compare import headlines
from llmkit.report.identity import identities
from llmkit.report.markdown import markdown

RECIPE = """\
run: {name: test, output_dir: runs, seed: 1}
model: {name_or_path: "llmkit.tiny:base", chat_template: chatml}
identity: {name: Nova, maker: Tillwood Labs, version: "1.10"}
stages:
  - {name: self, kind: identity}
  - {name: sft, kind: sft, data: [{from: self, fraction: 0.5}, {path: chats.jsonl}]}
evals: [identity]
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("identity: {name: Nova", "identity: {nome: Nova", "nome"),
        ("name: Nova, ", "", "identity.name"),
        ("name: Nova,", "name: ' ',", "identity.name"),
        ('version: "1.10"', "version: 1.10", "identity.version"),
        ('version: "1.10"', "languages: [en, xx]", "identity.languages"),
        ('version: "1.10"', "languages: []", "identity.languages"),
        ('version: "1.10"', "languages: [en, en]", "a language stands there twice"),
        ("kind: identity}", "kind: identity, system: 0.6, personas: 0.6}", "are 1.2 of all rows, more than 1"),
        ('identity: {name: Nova, maker: Tillwood Labs, version: "1.10"}\n', "", "nothing says who the model is"),
        ("evals: [identity]", "evals: [identity, identity]", "two evaluations are called 'identity'"),
        ("{from: self, fraction: 0.5}", "{from: self, name: pairs, fraction: 0.5}", "leaves no rows called 'pairs'"),
    ],
)
def test_what_is_refused(recipe: Path, old: str, new: str, expected: str) -> None:
    assert expected in said_of_change(recipe, old, new)


def test_an_identity_that_nothing_reads_is_refused(recipe: Path) -> None:
    unread = RECIPE
    for part in ("  - {name: self, kind: identity}\n", "{from: self, fraction: 0.5}, ", "evals: [identity]\n"):
        unread = unread.replace(part, "")
    recipe.write_text(unread)
    with pytest.raises(RecipeError, match="read by no stage and no evaluation"):
        load([str(recipe)], [])


def test_the_recipes_identity_is_filled_in_unless_a_stage_has_its_own(recipe: Path) -> None:
    own = {step.stage.name: step for step in make(load([str(recipe)], ["stages.self.identity={name: Vega}"])).steps}
    assert own["self"].stage.identity.name == "Vega"
    assert own["eval-sft"].stage.evals[0].identity.name == "Nova"
    assert own["self"].stage.launch.accelerate == "cpu/single" and own["self"].memory is None
    assert own["eval-sft"].memory is not None


def test_what_is_told_decides_what_is_done_again(recipe: Path) -> None:
    def prints(*words: str) -> dict[str, str]:
        return {step.stage.name: step.fingerprint for step in make(load([str(recipe)], list(words))).steps}

    plain, renamed, longer = prints(), prints("identity.name=Vega"), prints("stages.self.num_rows=10")
    assert all(plain[name] != renamed[name] for name in ("self", "sft", "eval-sft", "eval-base"))
    assert plain["eval-base"] == longer["eval-base"] and plain["sft"] != longer["sft"]


@pytest.mark.parametrize(("name", "fits"), [("identity", True), ("facts_known", True), ("honesty", False)])
def test_editors_take_the_bare_name(name: str, fits: bool) -> None:
    own = schema()
    evals = {"$defs": own["$defs"], **own["properties"]["evals"]}
    assert Draft202012Validator(evals).is_valid([name]) is fits


# --- the report -------------------------------------------------------------------------------------------------------


def rows(model: str, since: str | None, shift: float) -> list[EvalRow]:
    values = {
        "accuracy": 0.02 + shift, "persona_accuracy": 0.1 + shift, "claims_other": 0.5 - shift / 2,
        "accuracy, kind doubt": shift, "accuracy, kind name": shift, "accuracy, language en": shift,
    }  # fmt: skip
    return [
        EvalRow(
            stage=model, task="identity", metric=metric, value=value, low=value / 2, high=value, num_samples=90,
            **({"delta": shift, "delta_low": shift / 2, "delta_high": shift, "delta_from": since} if since else {}),
        )
        for metric, value in values.items()
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found = RunDir(tmp_path / "nova")
    told = [("eval-base", "evaluate", None, rows("base", None, 0.0)), ("self", "identity", None, []),
            ("sft", "sft", "model", []), ("eval-sft", "evaluate", None, rows("sft", "base", 0.9))]  # fmt: skip
    for index, (name, kind, model, evals) in enumerate(told, start=1):
        folder = found.path / f"{index:02d}-{name}"
        folder.mkdir(parents=True)
        settings = {"identity": {"name": "Nova"}} if kind == "identity" else {}
        settings |= {"evals": [{"task": "identity", "name": "identity"}]} if kind == "evaluate" else {}
        made = Manifest(stage=name, kind=kind, fingerprint=name, settings=settings, evals=evals, model_dir=model)
        write_manifest(folder, made)
    return found


def test_the_report_shows_who_it_says_that_it_is(run: RunDir) -> None:
    (found,) = identities(collect(run))
    assert [line.metric for line in found.main] == ["accuracy", "persona_accuracy", "claims_other"]
    assert [line.better for line in found.main] == ["higher is better", "higher is better", "lower is better"]
    assert [line.metric for line in found.kinds] == ["its name", "doubted, second turn"]
    assert [line.metric for line in found.languages] == ["en"]
    assert [line.metric for line in headlines(collect(run))] == ["accuracy", "persona_accuracy", "claims_other"]
    text = markdown(collect(run))
    assert "## Identity" in text and "### Accuracy by language" in text and "and doubted: Nova." in text
    page_of(run)
    assert 'id="identity"' in run.report.read_text()
