"""What benchmarks/guard_study.py makes of runs, on curves that were drawn by hand."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from llmkit.plan.make import make
from llmkit.preference.watch import Evaluation
from llmkit.recipe.load import load

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import guard_outcomes
import guard_picture
import guard_study

BASE = Path(__file__).parents[2] / "llmkit" / "tiny" / "base"
RUNS = tuple(f"{kind}-03" for kind in (guard_study.GUARDED, guard_study.OFF, guard_study.MANY))


def look(step: int, true: float, proxy: float, kl: float | None = None, gold: float | None = None) -> Evaluation:
    levels, rng = random.Random(0), random.Random(step)
    trues = [true + levels.gauss(0, 1) + rng.gauss(0, 0.2) for _ in range(64)]
    golds = [value + (0.0 if gold is None else gold - true) for value in trues]
    return Evaluation(step, float(step) if kl is None else kl, [proxy] * 64, golds, 0.0, {}, trues)


def curve(*trues: float) -> list[Evaluation]:
    return [look(10 * place, true, proxy=float(place)) for place, true in enumerate(trues)]


FALLS = curve(0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.0)
RISES = curve(0.0, 1.0, 1.5, 1.8, 2.0, 2.3, 2.6)


def outcome(off: list[Evaluation], seen: int, stopped: bool, best: int) -> Any:
    metrics = {"guard_stopped": float(stopped), "guard_best_step": float(best)}
    return guard_outcomes.outcome_of("run", 100, 2, 2e-4, off[:seen], off, metrics)


def test_a_fall_that_is_caught_in_time() -> None:
    found = outcome(FALLS, 5, stopped=True, best=20)
    assert (found.peak, found.over_optimised, found.proxy_rose) == (20, True, True)
    assert (found.stopped, found.late, found.restored) == (40, 2, 20)
    assert found.restored_true == pytest.approx(found.best_true)


def test_runs_are_counted() -> None:
    rows = [
        outcome(FALLS, 5, stopped=True, best=20),
        outcome(FALLS, 6, stopped=True, best=10),
        outcome(FALLS, 7, stopped=False, best=20),
        outcome(RISES, 7, stopped=False, best=60),
        outcome(RISES, 5, stopped=True, best=30),
    ]
    assert guard_outcomes.over_runs(rows, []) == {
        "runs": 5,
        "over_optimised": 3,
        "caught": 2,
        "stopped_near_the_peak": 1,
        "false_stops": 1,
        "restored_close_to_the_best": 3,
    }


@pytest.mark.parametrize(("gain", "verdict"), [(0.5, "better"), (-0.5, "worse"), (0.0, "neither better nor worse")])
def test_an_ensemble_is_compared_where_both_are_as_far(gain: float, verdict: str) -> None:
    """The second goes half as far, and is better by as much at every distance."""
    single = [look(step, true=step / 10, proxy=0.0, kl=float(step**2)) for step in range(11)]
    other = [look(100 + step, true=step / 20 + gain, proxy=0.0, kl=step**2 / 4) for step in range(11)]
    found = guard_outcomes.at_equal_kl([(single, other)] * 3)
    assert found["gain"] == pytest.approx(gain, abs=0.05)
    assert found["low"] <= found["gain"] <= found["high"]
    assert found["ensemble_is"] == verdict


def test_what_was_never_as_far_is_not_compared() -> None:
    apart = (curve(0.0, 1.0), [look(9, 1.0, 1.0, kl=90.0), look(10, 1.0, 1.0, kl=99.0)])
    assert guard_outcomes.at_equal_kl([apart])["runs"] == 0
    alike = (curve(0.0, 1.0), curve(0.0, 1.0))
    assert guard_outcomes.at_equal_kl([apart, alike])["runs"] == 1


def test_the_picture_shows_every_run() -> None:
    row = outcome(FALLS, 5, stopped=True, best=20)
    rows = [(row, {"guarded": FALLS[:5], "unguarded": FALLS})]
    found = guard_picture.page(rows, {"runs": 1}, ("guarded", "unguarded", "ensemble"))
    assert found.count("<svg") == 2
    assert "stopped at step 40, 2 looks later, and kept step 20" in found


@pytest.mark.parametrize("policy", [None, BASE])
def test_the_runs_are_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Path | None) -> None:
    """The tiny recipe's own stages, with other seeds and sizes, and nothing that holds the policy near its start."""
    words = ["--members", "4", "--steps", "60", "--batch", "32", "--runs", "6", "--guard-rankings", "1200"]
    words += ["--ensembles", "4", *(["--policy", str(policy)] if policy else [])]
    monkeypatch.setattr(sys, "argv", ["guard_study.py", str(tmp_path), *words])
    args = guard_study.arguments()
    settings = guard_study.settings_of(args)
    assert [(each.rankings, each.layers, each.learning_rate) for each in settings[3:]] == [
        (800, 1, 2e-4), (100, 2, 5e-4), (200, 4, 5e-4),
    ]  # fmt: skip
    path = tmp_path / "study.yaml"
    content = guard_study.recipe(args, settings, guard_study.ensembles(args))
    path.write_text(json.dumps({**content, "run": {"name": "study", "seed": 42}}))
    steps: dict[str, Any] = {step.name: step.stage for step in make(load([str(path)])).steps}
    assert [int(name[-2:]) for name in steps if name.startswith("ensemble")] == [0, 1, 2, 3]
    assert list(steps)[-8:] == [f"{kind}-0{number}" for number in range(4) for kind in ("rms", "ensemble")]
    shared = ["rollouts", "ranks", *(f"guard-{name}{hot}" for hot in ("", "-hot") for name in ("rollouts", "ranks"))]
    assert [name for name in steps if not name[-1].isdigit()] == [*([] if policy else ["sft"]), *shared, "gold"]
    own, hot = steps["guard-rollouts"], steps["guard-rollouts-hot"]
    assert [each.data[0].args["num_rows"] for each in (own, hot)] == [600, 600]
    assert (own.temperature, hot.temperature, hot.seed) == (1.0, 1.3, 2042)
    assert [source.from_ for source in steps["gold"].data] == ["guard-ranks", "guard-ranks-hot"]
    assert [steps[name].data[0].num_rows for name in ("rm-03", "rms-03", "gold")] == [800, 800, None]
    assert (steps["rm-03"].seed, steps["gold"].seed, steps["rms-03"].num_models) == (45, 1042, 4)
    assert [steps[name].num_layers for name in ("rm-03", "rms-03", "gold")] == [1, 1, None]
    assert (steps["guarded-03"].guard.max_share, steps["unguarded-03"].guard) == (1.0, "off")
    assert steps["guarded-03"].reward_model.from_ == ["rm-03"]
    alike = [steps[name].model_dump(exclude={"name", "guard", "reward_model"}) for name in RUNS]
    assert alike[0] == alike[1] == alike[2]
    assert (alike[0]["trainer"]["max_steps"], alike[0]["trainer"]["beta"], alike[0]["rewards"]) == (60, 0.0, [])
    assert [steps[f"guarded-{number:02d}"].trainer["learning_rate"] for number in (3, 4)] == [2e-4, 5e-4]
