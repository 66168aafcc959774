"""The ladder: against strengths that the comparisons were drawn from, and from the files of a run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from llmkit.artifacts.files import write_text
from llmkit.artifacts.manifest import Manifest, Parent, write_manifest
from llmkit.evaluate.ladder import Comparison, ladder
from llmkit.evaluate.results import Document, TaskResult, write_documents
from llmkit.stages.arena import main


def drawn(strengths: dict[str, float], num: int, seed: int = 0) -> list[Comparison]:
    rng, names = random.Random(seed), list(strengths)
    found = []
    for prompt in range(num):
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                chance = strengths[first] / (strengths[first] + strengths[second])
                found.append(Comparison(str(prompt), first, second, "first" if rng.random() < chance else "second"))
    return found


def test_strengths_are_found_again() -> None:
    ratings = {one.model: one for one in ladder(drawn({"a": 4.0, "b": 2.0, "c": 1.0}, 600))}
    assert ratings["a"].rating - ratings["b"].rating == pytest.approx(120, abs=45)
    assert ratings["b"].rating - ratings["c"].rating == pytest.approx(120, abs=45)
    assert sum(one.rating for one in ratings.values()) == pytest.approx(3000)
    assert all(one.low < one.rating < one.high for one in ratings.values())


def test_one_that_always_wins_has_a_rating_and_few_prompts_a_wide_interval() -> None:
    sure = [Comparison(str(n), "a", "b", "first") for n in range(20)]
    (first, second) = ladder(sure)
    assert first.model == "a"
    assert first.rating - second.rating < 4000
    few, many = ladder(drawn({"a": 2.0, "b": 1.0}, 20)), ladder(drawn({"a": 2.0, "b": 1.0}, 500))
    assert few[0].high - few[0].low > 3 * (many[0].high - many[0].low)


def test_comparisons_of_one_prompt_are_drawn_together() -> None:
    """A hundred raters of one prompt are not a hundred prompts."""
    one = [Comparison(str(n), "a", "b", "first" if n % 3 else "second") for n in range(30)]
    copied = [each for each in one for _ in range(100)]
    single, hundred = ladder(one)[0], ladder(copied)[0]
    assert hundred.high - hundred.low == pytest.approx(single.high - single.low, rel=0.3)


def run_of(folder: Path, golds: dict[str, list[float]]) -> Path:
    write_text(folder / "recipe.yaml", "run: {name: r}\n")
    for index, (model, values) in enumerate(golds.items(), start=1):
        stage = folder / f"{index:02d}-eval-{model}"
        stage.mkdir(parents=True)
        documents = [Document(n, f"prompt {n}", "", "text", {"gold": gold}) for n, gold in enumerate(values)]
        write_documents(stage / "evals", TaskResult("preference", [], documents))
        settings = {"evals": [{"task": "preference", "name": "preference"}]}
        parent = None if model == "base" else Parent(stage=model, fingerprint="f")
        write_manifest(
            stage, Manifest(stage=stage.name[3:], kind="evaluate", fingerprint="f", parent=parent, settings=settings)
        )
    return folder


def test_the_models_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(1)
    golds = {
        name: [rng.gauss(mean, 1) for _ in range(60)] for name, mean in (("base", 0.0), ("sft", 1.0), ("rlhf", 2.5))
    }
    run = run_of(tmp_path / "r", golds)
    assert main([str(run)]) == 0
    printed = capsys.readouterr().out
    assert printed.index("rlhf") < printed.index("sft") < printed.index("base")
    assert main([str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((run / "arena.json").read_text())
    assert told["num_comparisons"] == 180


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "r", {"base": [1.0, 2.0]})
    assert main([str(run)]) == 2
    assert "no comparisons of models" in capsys.readouterr().err
    assert main([str(run), "--by", "other"]) == 2
    assert main([str(tmp_path / "none")]) == 2
