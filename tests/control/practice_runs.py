"""A run with rejection sampling, practice, its control and evaluations on problems, through the manifests that workers
write."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from control.honest_runs import finished, trained
from control.report_runs import log, started

from llmkit.artifacts.files import write_text
from llmkit.artifacts.manifest import Curve, DataSummary, EvalRow, Manifest, Sample, SourceCount, write_manifest
from llmkit.artifacts.rundir import RunDir
from llmkit.report.run import RunReport, StageReport

RECIPE = """\
run: {name: assistant, output_dir: runs, seed: 42}
model: {name_or_path: "llmkit.tiny:base", chat_template: chatml}
stages:
  - {name: sft, kind: sft, data: [{path: chats.jsonl}]}
  - {name: best, kind: best_of_n, from: sft, data: [{path: problems.jsonl}], rewards: [exact]}
  - {name: round-1, kind: sft, from: sft, data: [{from: best}]}
  - {name: reason, kind: grpo, from: round-1, data: [{path: problems.jsonl}], rewards: [exact]}
  - {name: control-random, kind: grpo, from: round-1, data: [{path: problems.jsonl}], rewards: [random]}
evals: [{task: problems, problems: [{path: test.jsonl}], num_samples: 16, by: level}]
"""
NUM_STEPS, SIZE, NUM_GROUPS = 120, 8, 960
NUM = 400
BUDGETS = (1, 2, 4, 8, 16)
# model -> accuracy, tokens of an answer, share of answers that are cut off
MODELS = {
    "sft": (0.3125, 61.4, 0.045),
    "round-1": (0.405, 58.9, 0.0125),
    "reason": (0.685, 92.6, 0.0025),
    "control-random": (0.3975, 57.2, 0.015),
}
# set -> accuracy before, after, after the control
HELDOUT = {"test": (0.405, 0.685, 0.3975), "longer": (0.06, 0.075, 0.05)}


def practice_run(folder: Path, extra: str = "", shift: float = 0.0) -> RunDir:
    """`extra` is put wherever a model's or a user's text may stand; `shift` is added to what practice reached."""
    run = RunDir(folder / "assistant")
    write_text(run.recipe, RECIPE)
    trained(run, 1, "sft", "base", [{"path": "chats.jsonl"}])
    solved(run, 2, "sft", None, extra)
    sampled(run, 3, extra)
    trained(run, 4, "round-1", "sft", [{"from": "best"}])
    solved(run, 5, "round-1", "sft", extra)
    practised(run, 6, "reason", 1, extra, shift)
    solved(run, 7, "reason", "round-1", extra, shift)
    practised(run, 8, "control-random", 2, extra)
    solved(run, 9, "control-random", "round-1", extra)
    return run


def practised(run: RunDir, index: int, name: str, column: int, extra: str = "", shift: float = 0.0) -> None:
    """A finished stage; `column` of HELDOUT is what it reached."""
    metrics = {"train_loss": 0.0021, "last_loss": -0.0012, "steps": 120.0}
    lines, lengths = [], (58.9, MODELS[name][1])
    for held, shares in HELDOUT.items():
        for when, place in (("before", 0), ("after", 1)):
            share = (shares[0], shares[column])[place] + (shift if place else 0)
            metrics |= {f"heldout/{held}{extra}/{when}/{key}": x for key, x in numbers(share, lengths[place]).items()}
        lines += curves(held + extra, shares[0], shares[column] + shift, *lengths)
    metrics |= {"sampled_tokens": 561_234.0, "sampled_groups": 960.0, "useful_groups": 0.6125, "problems": 1200.0}
    rows = SourceCount(
        source=f"problems.jsonl{extra}", num_read=1250, num_duplicates=50, num_used=1200, sha256="ef" * 32
    )
    warning = "step 96: practice/useful_groups is 0.0625, below 0.1: nearly all groups are all right or all wrong"
    finished(
        run,
        index,
        name,
        "grpo",
        "round-1",
        settings(name, extra),
        metrics={**metrics, "train_seconds": 1312.0},
        curves=lines,
        samples=rollouts(extra),
        warnings=[warning + extra] if name == "reason" else [],
        data=DataSummary(sources=[rows], num_rows=1200),
        tokens_per_second=428.0,
    )
    log(run.stage(index, name).metrics, [*logged(name), *measure_lines(lines)])


def settings(name: str, extra: str = "") -> dict[str, Any]:
    reward = "random" if name.startswith("control") else "exact"
    return {
        "name": name,
        "kind": "grpo",
        "from": "round-1",
        "seed": 42,
        "data": [{"path": "problems.jsonl" + extra}],
        "heldout": {held: [{"path": f"{held}.jsonl"}] for held in HELDOUT},
        "rewards": [
            {"name": reward, "path": None, "args": {}, "weight": 1.0, "when": {}},
            {"name": None, "path": f"my_rewards:brief{extra}", "args": {}, "weight": 0.1, "when": {}},
            {"name": "length", "path": None, "args": {}, "weight": 0.0, "when": {}},
        ],
        "global_batch_size": 64,
        "measure": {"num_samples": 8, "every": 0.2, "num_problems": 200},
        "trainer": {
            "num_generations": SIZE,
            "max_completion_length": 256,
            "learning_rate": 2e-5,
            "max_steps": NUM_STEPS,
        },
    }


def numbers(accuracy: float, length: float) -> dict[str, float]:
    """As `Measured` writes them, of one set."""
    values = {"accuracy": accuracy, "answered": 0.97, "truncated": 0.01, "num_tokens": length}
    for k in (1, 2, 4, 8):
        values[f"pass@{k}"] = 1 - (1 - accuracy) ** math.sqrt(k)
        if k > 2:
            values[f"maj@{k}"] = min(1.0, accuracy * (1 + 0.02 * k))
    found = {"num_problems": float(NUM)}
    for key, value in values.items():
        spread = 1.5 if key == "num_tokens" else 1.96 * math.sqrt(max(value * (1 - value), 1e-4) / NUM)
        found |= {key: value, f"{key}_low": max(0.0, value - spread), f"{key}_high": value + spread}
    return found


def curves(held: str, first: float, last: float, shortest: float, longest: float) -> list[Curve]:
    """Measured at every fifth of the steps."""
    steps = [24.0 * place for place in range(6)]
    rise = [1 - math.exp(-3 * step / NUM_STEPS) if step < NUM_STEPS else 1.0 for step in steps]
    values = {
        "accuracy": [first + (last - first) * share for share in rise],
        "answered": [0.97] * 6,
        "num_tokens": [shortest + (longest - shortest) * share for share in rise],
        "truncated": [0.01] * 6,
    }
    made = {f"{held}/{key}": list(zip(steps, line, strict=True)) for key, line in values.items()}
    return [Curve(name=key, x="step", y=key, points=points) for key, points in made.items()]


def measure_lines(lines: list[Curve], until: float = NUM_STEPS) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that the curves are made of."""
    steps = sorted({step for line in lines for step, _ in line.points if step <= until})
    return [
        {"time": 9.0, "phase": "measure", "step": int(step), "total": NUM_STEPS}
        | {line.name: dict(line.points)[step] for line in lines}
        for step in steps
    ]


def logged(name: str, num_steps: int = NUM_STEPS) -> list[dict[str, Any]]:
    reward = "random" if name.startswith("control") else "exact"
    rows = []
    for step in range(1, num_steps + 1):
        share = step / NUM_STEPS
        noise = 0.05 * math.sin(step * 2.1) + 0.04 * math.cos(step * 5.3)
        right = 0.5 + noise if reward == "random" else 0.36 + 0.42 * (1 - math.exp(-3 * share)) + noise
        rows.append(
            {
                "time": 11.0 * step,
                "phase": "train",
                "step": step,
                "total": NUM_STEPS,
                "loss": 0.002 * noise,
                "grad_norm": 0.4 + abs(noise),
                "learning_rate": 2e-5 * (1 - share),
                "num_tokens": 4000.0 * step,
                "completions/mean_length": 60 + 32 * share + 40 * noise,
                "completions/clipped_ratio": max(0.0, 0.03 - 0.02 * share + 0.1 * noise),
                f"rewards/{reward}/mean": right,
                f"rewards/{reward}/std": 0.4,
                f"{reward}/found_any": 0.9,
                "other/found_any": 0.9,
                "rewards/brief/mean": math.nan if step == 7 else 0.2 - 0.1 * share,
                "reward": right + 0.02,
                "reward_std": 0.41,
                "entropy": 0.62 - 0.35 * share + noise / 4,
                "kl": 0.002 + 0.03 * share,
                "clip_ratio/region_mean": 0.002 + abs(noise) / 50,
                "practice/useful_groups": 0.7 - 0.2 * share + noise,
                "practice/sampled_tokens": 4677.0 * step,
            }
        )
    return rows


def rollouts(extra: str = "") -> list[Sample]:
    told = {
        "first step": "step 0, reward 0, 71 tokens",
        "best of the last steps": "step 118, reward 1.02, 88 tokens",
        "worst of the last steps": "step 117, reward 0, 256 tokens, cut off",
        "longest of the last steps": "step 117, reward 0, 256 tokens, cut off",
    }
    asked = (
        "Ada has 12 plums. She buys 3 bags with 7 plums each and gives 9 away. How many has she now?",
        "A path is 240 m long. Cora walks 3/8 of it. How far has she still to go?",
        "What is (17 + 4 * 6) - 12?",
    )
    answers = {
        "first step": "3 bags are 21 plums. 12 + 21 - 9. The answer is 21",
        "best of the last steps": "3 bags with 7 plums: 3 * 7 = 21.\n12 + 21 = 33.\n33 - 9 = 24.\nThe answer is 24",
        "worst of the last steps": "12 + 3 = 15. Wait, " * 12,
        "longest of the last steps": "Let me see: 12 + 3 = 15. Wait, " * 12,
    }
    return [
        Sample(prompt=prompt + extra, completion=answers[kind] + extra, label=f"{kind}: {about}")
        for kind, about in told.items()
        for prompt in asked
    ]


def sampled(run: RunDir, index: int, extra: str = "") -> None:
    """Rejection sampling."""
    metrics = {f"pass@{k}": 1 - 0.7 ** math.sqrt(k) for k in (1, 2, 4, 8)} | {"maj@4": 0.36, "maj@8": 0.41}
    counts = {"problems": 1200.0, "never_solved": 427.0, "too_easy": 61.0, "rows": 712.0}
    rows = SourceCount(
        source="problems.jsonl" + extra, num_read=1250, num_duplicates=50, num_used=1200, sha256="ef" * 32
    )
    told = {"name": "best", "kind": "best_of_n", "from": "sft", "num_samples": 8, "data": [{"path": "problems.jsonl"}]}
    finished(
        run,
        index,
        "best",
        "best_of_n",
        "sft",
        {**told, "rewards": [{"name": "exact", "weight": 1.0}]},
        metrics={**metrics, **counts, "problems_per_second": 3.4},
        samples=[Sample(prompt="What is 2 + 2?" + extra, completion="The answer is 4" + extra, label="kept answer")],
        data=DataSummary(sources=[rows], num_rows=712),
    )


def solved(run: RunDir, index: int, model: str, since: str | None, extra: str = "", shift: float = 0.0) -> None:
    """An evaluation on problems."""
    told = {
        "task": "problems",
        "name": "problems",
        "num_samples": 16,
        "by": "level",
        "problems": [{"path": "test.jsonl"}],
    }
    own = {"name": f"eval-{model}", "kind": "evaluate", "from": model, "evals": [told]}
    finished(run, index, f"eval-{model}", "evaluate", model, own, evals=problem_rows(model, since, shift))


def problem_rows(model: str, since: str | None, shift: float = 0.0, task: str = "problems") -> list[EvalRow]:
    before = _values(since) if since else {}
    rows = []
    for metric, (value, num) in _values(model, shift).items():
        spread = 1.4 if metric == "num_tokens" else 1.96 * math.sqrt(max(value * (1 - value), 1e-4) / num)
        bounds: dict[str, Any] = {"low": max(0.0, value - spread), "high": value + spread}
        if metric != "num_tokens":
            bounds["high"] = min(1.0, value + spread)
        if metric in before:
            delta = value - before[metric][0]
            bounds |= {"delta": delta, "delta_low": delta - 0.7 * spread, "delta_high": delta + 0.7 * spread}
            bounds["delta_from"] = since
        rows.append(EvalRow(stage=model, task=task, metric=metric, value=value, num_samples=num, **bounds))
    return rows


def _values(model: str, shift: float = 0.0) -> dict[str, tuple[float, int]]:
    accuracy, length, cut = MODELS[model]
    accuracy += shift
    found = {
        "accuracy": (accuracy, NUM),
        "answered": (1 - 2 * cut, NUM),
        "truncated": (cut, NUM),
        "num_tokens": (length, NUM),
    }
    ceiling = 0.9  # what many answers reach does not move much
    for k in BUDGETS:
        once = 0.93 * accuracy
        found[f"pass@{k}"] = (once + (max(ceiling - once, 0.02)) * (1 - k**-0.55), NUM)
        if k > 2:
            found[f"maj@{k}"] = (min(0.95, accuracy * (0.98 + 0.04 * math.log2(k))), NUM)
    for level, factor in (("1", 1.35), ("2", 1.1), ("10", 0.4)):
        found[f"accuracy, level {level}"] = (min(0.99, accuracy * factor), 100 if level == "10" else 150)
    return found


def running(folder: Path, extra: str = "") -> RunDir:
    """Practice that has come to step 50 of 120, beside a control that is not begun."""
    run = RunDir(folder / "assistant")
    write_text(run.recipe, RECIPE)
    started(run, 6, "reason", "grpo", rewards=["exact"], data=[{"path": "problems.jsonl" + extra}])
    lines = [line for held, (first, last, _) in HELDOUT.items() for line in curves(held, first, last, 58.9, 92.6)]
    log(run.stage(6, "reason").metrics, [*logged("reason", 24), *measure_lines(lines, 48), *logged("reason", 50)[24:]])
    return run


def stage_of(report: RunReport, name: str) -> StageReport:
    return next(stage for stage in report.stages if stage.name == name)


def changed(run: RunDir, index: int, name: str, **update: object) -> Manifest:
    """The stage's manifest, written anew."""
    made = run.stage(index, name).manifest()
    assert made is not None
    made = made.model_copy(update=update)
    write_manifest(run.stage(index, name).path, made)
    return made


def heights(chart: str, css: str) -> list[float]:
    """y of every point of a line."""
    found = re.search(rf'class="series {css}" d="M([^"]+)"', chart)
    assert found is not None
    return [float(point.split()[1]) for point in found[1].split("L")]
