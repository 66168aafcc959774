"""The ladder: against strengths that the comparisons were drawn from, and from the files of a run."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from data.helpers_rank import decision, rollout_row

from llmkit.artifacts.files import write_text
from llmkit.artifacts.manifest import Manifest, Parent, write_manifest
from llmkit.evaluate.ladder import Comparison, duels, ladder
from llmkit.evaluate.results import Document, TaskResult, write_documents
from llmkit.preference.rankings import Decision
from llmkit.preference.rollouts import Item, item_of
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


def test_every_two_models_have_a_win_rate_with_an_interval() -> None:
    """Ties count half, raters of one prompt together once, and the winner stands first."""
    made = [Comparison(str(n), "a", "b", "second" if n % 4 else "first") for n in range(40)]
    made += [Comparison("0", "b", "a", "second")] * 5 + [Comparison("tied", "a", "b", "tie")]
    made += [Comparison(str(n), "a", "c", "tie") for n in range(3)]
    found = {(one.model, one.other): one for one in duels(made)}
    ahead, level = found["b", "a"], found["a", "c"]
    assert ahead.win_rate == pytest.approx(30.5 / 41)
    assert ahead.low is not None and ahead.high is not None
    assert 0.55 < ahead.low < ahead.win_rate < ahead.high < 0.9
    assert (ahead.num_ties, ahead.num_comparisons) == (1, 46)
    assert (level.win_rate, level.num_ties) == (0.5, 3)


def ranked_run(folder: Path, decisions: list[Decision], item: Item) -> Path:
    """Answers of two models to one prompt, ranked by people."""
    run = run_of(folder, {})
    row = {"id": item.id, "prompt": item.prompt, "completions": [
        {"id": each.id, "text": each.text, "model": model}
        for each, model in zip(item.completions, ("sft", "rlhf"), strict=True)
    ]}  # fmt: skip
    write_text(run / "01-answers" / "data" / "rollouts.jsonl", json.dumps(row) + "\n")
    write_manifest(run / "01-answers", Manifest(stage="answers", kind="rollout", fingerprint="f"))
    lines = "".join(each.model_dump_json() + "\n" for each in decisions)
    write_text(run / "02-people" / "data" / "rankings.jsonl", lines)
    told = {"rollouts": "answers"}
    write_manifest(run / "02-people", Manifest(stage="people", kind="rank", fingerprint="f", settings=told))
    return run


def test_second_looks_and_flagged_prompts_are_no_comparisons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = item_of(rollout_row(0, texts=("a", "b")), "")
    looks = [decision(item, ["c1", "c0"]), decision(item, ["c0", "c1"], repeat=1), decision(item, ["c1", "c0"], "ben")]
    run = ranked_run(tmp_path / "r", looks, item)
    assert main([str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["num_comparisons"] == 2
    (pair,) = told["pairs"]
    assert (pair["model"], pair["other"], pair["win_rate"]) == ("rlhf", "sft", 1.0)
    flagged = ranked_run(tmp_path / "f", [*looks, decision(item, [], "carl", flagged="a real person")], item)
    assert main([str(flagged)]) == 2
    assert "no comparisons of models" in capsys.readouterr().err


def test_what_both_models_wrote_is_a_tie_of_theirs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = item_of(rollout_row(0, texts=("a", "b")), "")
    run = ranked_run(tmp_path / "r", [decision(item, ["c0", "c1"])], item)
    path = run / "01-answers" / "data" / "rollouts.jsonl"
    row = json.loads(path.read_text())
    row["completions"][0]["models"] = ["sft", "rlhf"]
    path.write_text(json.dumps(row) + "\n")
    assert main([str(run), "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    # the shared answer is a tie, and as sft's it is better than the other of rlhf
    assert (pair["model"], pair["win_rate"], pair["num_ties"], pair["num_comparisons"]) == ("sft", 0.75, 1, 2)


def test_rankings_of_answers_that_are_made_anew_do_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = item_of(rollout_row(0, texts=("a", "b")), "")
    run = ranked_run(tmp_path / "r", [decision(item, ["c0", "c1"])], item)
    shutil.rmtree(run / "01-answers")
    assert main([str(run)]) == 2
    assert "no comparisons of models" in capsys.readouterr().err


def test_what_a_judge_said_is_compared_with_the_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "r", {"rlhf": [1.0, 0.0, 0.5, 1.0]}, metric="judge_win", baseline="sft")
    assert main([str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["by"] == "preference by judge"
    (pair,) = told["pairs"]
    assert (pair["model"], pair["other"], pair["win_rate"], pair["num_ties"]) == ("rlhf", "sft", 0.625, 1)


def run_of(folder: Path, golds: dict[str, list[float]], metric: str = "gold", baseline: str | None = None) -> Path:
    write_text(folder / "recipe.yaml", "run: {name: r}\n")
    for index, (model, values) in enumerate(golds.items(), start=1):
        stage = folder / f"{index:02d}-eval-{model}"
        stage.mkdir(parents=True)
        documents = [Document(n, f"prompt {n}", "", "text", {metric: gold}) for n, gold in enumerate(values)]
        write_documents(stage / "evals", TaskResult("preference", [], documents))
        settings = {"evals": [{"task": "preference", "name": "preference", "baseline": baseline}]}
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
    assert "against" in printed
    assert main([str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((run / "arena.json").read_text())
    assert told["num_comparisons"] == 180
    assert [one["model"] + one["other"] for one in told["pairs"]] == ["rlhfbase", "rlhfsft", "sftbase"]
    assert all(one["low"] < one["win_rate"] < one["high"] for one in told["pairs"])


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path / "r", {"base": [1.0, 2.0]})
    assert main([str(run)]) == 2
    assert "no comparisons of models" in capsys.readouterr().err
    assert main([str(run), "--by", "other"]) == 2
    assert main([str(tmp_path / "none")]) == 2
