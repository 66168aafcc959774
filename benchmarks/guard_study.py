"""Is the guard right? Runs of recipes/tiny/rlhf.yaml with other seeds, and reward models of more and fewer rankings and
layers.
Each practises twice with nothing that holds it near its start: under the guard, and without one.

    python benchmarks/guard_study.py runs/study --runs 10 --rankings 100 200 400 800 --steps 200
    python benchmarks/guard_study.py runs/study --members 4        # and against the lowest score of four reward models

All share one assistant and its rollouts. Every run is an ordinary run of llmkit below the folder, with a report of its
own: what is there is not done again. `study.json` and `study.html` hold the table and the pictures. The labeller's true
taste is measured, and no guard sees it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import ENV, ROOT
from guard_outcomes import Outcome, looks_in, outcome_of, over_runs
from guard_picture import page
from ruamel.yaml import YAML

RECIPE = ROOT / "recipes" / "tiny" / "rlhf.yaml"
SHARED = ("sft", "rollouts", "ranks", "guard-rollouts", "guard-ranks")
GUARDED, OFF, MANY = "rlhf", "control-unguarded", "control-ensemble"


def main() -> None:
    args = arguments()
    shared = run(args.folder, "shared", shared_recipe(args), args.recipe_words)
    rows = []
    for number in range(args.runs):
        size, layers = args.rankings[number % len(args.rankings)], args.layers[number % len(args.layers)]
        name = f"run-{number:02d}"
        made = run(args.folder, name, run_recipe(args, shared, number, size, layers), ())
        found = {stage: looks_in(made[stage]) for stage in (GUARDED, OFF, MANY) if stage in made}
        metrics = json.loads((made[GUARDED] / "manifest.json").read_text())["metrics"]
        outcome = outcome_of(name, size, layers, found[GUARDED], found[OFF], metrics)
        rows.append((outcome, found))
        print(json.dumps(outcome.__dict__), flush=True)
    outcomes = [outcome for outcome, _ in rows]
    pairs = [(found[OFF], found[MANY]) for _, found in rows if MANY in found]
    summary = over_runs(outcomes, pairs)
    (args.folder / "study.json").write_text(json.dumps({**summary, "rows": [each.__dict__ for each in outcomes]}))
    (args.folder / "study.html").write_text(page(rows, summary, {"guarded": GUARDED, "off": OFF, "ensemble": MANY}))
    print_table(outcomes)
    print(json.dumps(summary))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs are, and go on")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rankings", type=int, nargs="+", default=[100, 200, 400, 800], help="prompts, run by run")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2, 4], help="of that model, run by run")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=float, default=0.05, help="share of the steps between two looks")
    parser.add_argument("--prompts", type=int, default=128, help="held-out prompts of a look")
    parser.add_argument("--batch", type=int, default=128, help="answers a step")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument("--members", type=int, default=1, help="reward models of an ensemble, compared at equal KL")
    parser.add_argument("--policy", type=Path, help="a model that answers, in place of training one")
    parser.add_argument("--recipe-words", nargs="*", default=[], help="key=value for the shared stages")
    return parser.parse_args()


def stages_of_recipe() -> dict[str, dict[str, Any]]:
    with RECIPE.open() as file:
        found = YAML(typ="safe").load(file)["stages"]
    return {stage["name"]: stage for stage in found}


def shared_recipe(args: argparse.Namespace) -> dict[str, Any]:
    stages = [stage for name, stage in stages_of_recipe().items() if name in SHARED]
    if args.policy is not None:
        stages = [{**stage, "from": "base"} for stage in stages if stage["name"] != "sft"]
    return {"model": model(args.policy or "llmkit.tiny:base"), "stages": stages}


def run_recipe(
    args: argparse.Namespace, shared: dict[str, Path], number: int, num_rankings: int, num_layers: int
) -> dict[str, Any]:
    """Reward models of this run's seed, and practice against them."""
    own, seed = stages_of_recipe(), 42 + number

    def reward(name: str, ranks: str, seed: int, **fields: Any) -> dict[str, Any]:
        data = [{"path": str(shared[ranks] / "data" / "train.jsonl"), **fields.pop("source", {})}]
        return {**own["rm"], "from": "base", "name": name, "data": data, "heldout": {}, "seed": seed, **fields}

    some = {"source": {"num_rows": num_rankings}, "num_layers": num_layers}
    stages = [reward("rm", "ranks", seed, **some), reward("gold", "guard-ranks", seed + 1000)]
    guard = {"gold": "gold", "every": args.every, "num_prompts": args.prompts, "max_share": 1.0}
    stages += [practice(args, GUARDED, "rm", guard), practice(args, OFF, "rm", "off")]
    if args.members > 1:
        stages.append(reward("rms", "ranks", seed, num_models=args.members, **some))
        stages.append(practice(args, MANY, {"from": "rms", "combine": "min"}, "off"))
    policy = args.policy or shared["sft"] / "model"
    return {"model": model(policy), "run": {"seed": seed}, "stages": stages}


def practice(args: argparse.Namespace, name: str, reward_model: Any, guard: Any) -> dict[str, Any]:
    """The recipe's, on jokes alone: rehearsal would hold the policy near its start."""
    own = {key: value for key, value in stages_of_recipe()["rlhf"].items() if key not in ("rewards", "reward_when")}
    jokes = [{key: value for key, value in source.items() if key not in ("fraction", "set")} for source in own["data"]]
    held = {"jokes": [{"path": jokes[0]["path"], "args": {"part": "heldout", "num_rows": args.prompts}}]}
    trainer = {
        **own["trainer"],
        "max_steps": args.steps,
        "learning_rate": args.learning_rate,
        "beta": args.beta,
        "save_total_limit": 1,
        "per_device_train_batch_size": min(args.batch, own["trainer"]["per_device_train_batch_size"]),
    }
    fields = {"name": name, "from": "base", "data": jokes[:1], "heldout": held, "reward_model": reward_model}
    return {**own, **fields, "guard": guard, "global_batch_size": args.batch, "trainer": trainer}


def model(path: Any) -> dict[str, str]:
    return {"name_or_path": str(path), "chat_template": "chatml"}


def run(folder: Path, name: str, recipe: dict[str, Any], words: Any) -> dict[str, Path]:
    """Stage -> its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / f"{name}.yaml").resolve()
    own = {"name": name, "output_dir": str(folder.resolve()), "seed": 42, **recipe.get("run", {})}
    path.write_text(json.dumps({**recipe, "run": own}))  # JSON is YAML
    command = [sys.executable, "-m", "llmkit.cli.main", "run", str(path), *words]
    subprocess.run(command, env=ENV, cwd=ROOT, check=True)
    found = sorted((folder / name).glob("*/manifest.json"))
    return {json.loads(each.read_text())["stage"]: each.parent.resolve() for each in found}


def print_table(outcomes: list[Outcome]) -> None:
    names = list(outcomes[0].__dict__) if outcomes else []
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    for each in outcomes:
        values = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in each.__dict__.values()]
        print("| " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
