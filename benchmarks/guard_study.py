"""Is the guard right? Practice as in recipes/tiny/rlhf.yaml with other seeds and learning rates, against reward models
of more and fewer rankings and layers. Each practises twice with nothing that holds it near its start: under the guard,
and without one.

    python benchmarks/guard_study.py runs/study
    python benchmarks/guard_study.py runs/study --members 4        # and against the lowest score of four reward models
    python benchmarks/guard_study.py runs/study --members 4 --ensembles 3                  # of the first three runs

All share one assistant, its rollouts and the guard's reward model. It is one run of llmkit, whose recipe grows by a
practice at a time, ensembles behind all others: what is there is not done again. `study.json` and `study.html` hold the
table and the pictures. The labeller's true taste is measured, and no guard sees it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ENV, ROOT
from guard_outcomes import Outcome, looks_in, outcome_of, over_runs
from guard_picture import page
from ruamel.yaml import YAML

RECIPE = ROOT / "recipes" / "tiny" / "rlhf.yaml"
SHARED = ("sft", "rollouts", "ranks", "guard-rollouts", "guard-ranks", "gold")
HOT = 1.3
"""Temperature of half of the guard's rollouts."""
GUARDED, OFF, MANY = "guarded", "unguarded", "ensemble"


@dataclass(frozen=True)
class Setting:
    """What one practice has of its own."""

    number: int
    rankings: int
    layers: int
    learning_rate: float
    seed: int

    def stage(self, name: str) -> str:
        return f"{name}-{self.number:02d}"


def main() -> None:
    args = arguments()
    settings = settings_of(args)
    made = made_in(args.folder)
    for place, setting in enumerate(settings):
        # a shorter recipe would set aside what was made of a longer one
        if setting.stage(OFF) not in made:
            made = run(args.folder, recipe(args, settings[: place + 1]), args.recipe_words)
        print(json.dumps(row_of(setting, made)[0].__dict__), flush=True)
    if many := ensembles(args):
        made = run(args.folder, recipe(args, settings, many), args.recipe_words)
    rows = [row_of(setting, made) for setting in settings]
    outcomes = [outcome for outcome, _ in rows]
    pairs = [(found[OFF], found[MANY]) for _, found in rows if MANY in found]
    summary = over_runs(outcomes, pairs)
    (args.folder / "study.json").write_text(json.dumps({**summary, "rows": [each.__dict__ for each in outcomes]}))
    (args.folder / "study.html").write_text(page(rows, summary, (GUARDED, OFF, MANY)))
    print_table(outcomes)
    print(json.dumps(summary))


def row_of(setting: Setting, made: dict[str, Path]) -> tuple[Outcome, dict[str, Any]]:
    """What became of one run, and what was seen in each of its practices."""
    names = {kind: setting.stage(kind) for kind in (GUARDED, OFF, MANY) if setting.stage(kind) in made}
    found = {kind: looks_in(made[name]) for kind, name in names.items()}
    metrics = json.loads((made[names[GUARDED]] / "manifest.json").read_text())["metrics"]
    own = (f"run-{setting.number:02d}", setting.rankings, setting.layers, setting.learning_rate)
    return outcome_of(*own, found[GUARDED], found[OFF], metrics), found


def ensembles(args: argparse.Namespace) -> int:
    """How many of the runs practise against an ensemble, too."""
    return min(args.runs, args.ensembles) if args.members > 1 else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the run is, and goes on")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=42, help="of the first run; the next has the next")
    parser.add_argument("--rankings", type=int, nargs="+", default=[100, 200, 400, 800], help="prompts, run by run")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2, 4], help="of that model, run by run")
    parser.add_argument("--guard-rankings", type=int, default=2400, help="prompts that the guard's model is trained on")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--every", type=float, default=0.05, help="share of the steps between two looks")
    parser.add_argument("--prompts", type=int, default=96, help="held-out prompts of a look")
    parser.add_argument("--batch", type=int, default=64, help="answers a step")
    parser.add_argument(
        "--learning-rate",
        type=float,
        nargs="+",
        default=[2e-4, 5e-4],
        help="one for all that `--rankings` names, the next for all of them again",
    )
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument("--members", type=int, default=1, help="reward models of an ensemble, compared at equal KL")
    parser.add_argument("--ensembles", type=int, default=sys.maxsize, help="runs that these are made for (all)")
    parser.add_argument("--policy", type=Path, help="a model that answers, in place of training one")
    parser.add_argument("--recipe-words", nargs="*", default=[], help="key=value for the shared stages")
    return parser.parse_args()


def settings_of(args: argparse.Namespace) -> list[Setting]:
    """Rankings and layers turn with every run, learning rates with every round of rankings."""
    return [
        Setting(
            number,
            args.rankings[number % len(args.rankings)],
            args.layers[number % len(args.layers)],
            args.learning_rate[number // len(args.rankings) % len(args.learning_rate)],
            args.first_seed + number,
        )
        for number in range(args.runs)
    ]


def recipe(args: argparse.Namespace, settings: list[Setting], many: int = 0) -> dict[str, Any]:
    """What all share, and for each setting a reward model and practice against it; for the first `many` then an
    ensemble."""
    stages = [stage for setting in settings for stage in stages_of(args, setting)]
    stages += [stage for setting in settings[:many] for stage in ensemble(args, setting)]
    # a policy that is given stands in place of the assistant that the recipe trains
    policy, base = (args.policy, "base") if args.policy is not None else ("llmkit.tiny:base", "sft")
    shared = [stage for stage in judged(args) if not (args.policy and stage["name"] == "sft")]
    made = [stage if stage["name"] == "sft" else {**stage, "from": base} for stage in (*shared, *stages)]
    return {"model": {"name_or_path": str(policy), "chat_template": "chatml"}, "stages": made}


def judged(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The shared stages. Half of what the guard's model learns from is sampled hotter: it is to know answers that the
    assistant hardly gives."""
    stages = {name: stage for name, stage in of_recipe().items() if name in SHARED}
    rollouts, ranks, gold = (stages.pop(name) for name in ("guard-rollouts", "guard-ranks", "gold"))
    made, data = list(stages.values()), []
    for number, temperature in enumerate((1.0, HOT)):
        names = [name + ("-hot" if number else "") for name in ("guard-rollouts", "guard-ranks")]
        seed, source = rollouts["seed"] + 1000 * number, rollouts["data"][0]
        prompts = {**source, "args": {**source["args"], "num_rows": args.guard_rankings // 2, "seed": number}}
        made.append({**rollouts, "name": names[0], "seed": seed, "data": [prompts], "temperature": temperature})
        made.append({**ranks, "name": names[1], "seed": seed, "rollouts": names[0]})
        data.append({"from": names[1]})
    return [*made, {**gold, "data": data}]


def of_recipe() -> dict[str, dict[str, Any]]:
    with RECIPE.open() as file:
        found = YAML(typ="safe").load(file)["stages"]
    return {stage["name"]: stage for stage in found}


def stages_of(args: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    rm = setting.stage("rm")
    guard = {"gold": "gold", "every": args.every, "num_prompts": args.prompts, "max_share": 1.0}
    made = [practice(args, setting, GUARDED, rm, guard), practice(args, setting, OFF, rm, "off")]
    return [{**reward_stage(setting), "name": rm}, *made]


def ensemble(args: argparse.Namespace, setting: Setting) -> list[dict[str, Any]]:
    rms = setting.stage("rms")
    made = {**reward_stage(setting), "name": rms, "num_models": args.members}
    return [made, practice(args, setting, MANY, {"from": rms, "combine": "min"}, "off")]


def reward_stage(setting: Setting) -> dict[str, Any]:
    some = {"data": [{"from": "ranks", "num_rows": setting.rankings}], "num_layers": setting.layers, "heldout": {}}
    return {**of_recipe()["rm"], **some, "seed": setting.seed}


def practice(args: argparse.Namespace, setting: Setting, kind: str, reward_model: Any, guard: Any) -> dict[str, Any]:
    """The recipe's, on jokes alone: rehearsal would hold the policy near its start."""
    own = {key: value for key, value in of_recipe()["rlhf"].items() if key not in ("rewards", "reward_when")}
    jokes = [{key: value for key, value in source.items() if key not in ("fraction", "set")} for source in own["data"]]
    held = {"jokes": [{"path": jokes[0]["path"], "args": {"part": "heldout", "num_rows": args.prompts}}]}
    trainer = {
        **own["trainer"],
        "max_steps": args.steps,
        "learning_rate": setting.learning_rate,
        "beta": args.beta,
        "save_total_limit": 1,
        "per_device_train_batch_size": min(args.batch, own["trainer"]["per_device_train_batch_size"]),
    }
    fields = {"name": setting.stage(kind), "seed": setting.seed, "data": jokes[:1], "heldout": held}
    return {
        **own,
        **fields,
        "reward_model": reward_model,
        "guard": guard,
        "global_batch_size": args.batch,
        "trainer": trainer,
    }


def run(folder: Path, content: dict[str, Any], words: Any) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / "study.yaml").resolve()
    own = {"name": "study", "output_dir": str(folder.resolve()), "seed": 42}
    path.write_text(json.dumps({**content, "run": own}))  # JSON is YAML
    command = [sys.executable, "-m", "llmkit.cli.main", "run", str(path), *words]
    subprocess.run(command, env=ENV, cwd=ROOT, check=True)
    return made_in(folder)


def made_in(folder: Path) -> dict[str, Path]:
    """Stage -> its folder, of those that have finished."""
    found = sorted((folder / "study").glob("*/manifest.json"))
    return {json.loads(each.read_text())["stage"]: each.parent.resolve() for each in found}


def print_table(outcomes: list[Outcome]) -> None:
    names = list(outcomes[0].__dict__) if outcomes else []
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    for each in outcomes:
        values = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in each.__dict__.values()]
        print("| " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
