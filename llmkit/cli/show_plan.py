"""`llmkit validate` and `llmkit plan`."""

from __future__ import annotations

from collections.abc import Sequence

from llmkit.cli.output import console
from llmkit.plan.keys import unset_keys
from llmkit.plan.make import make
from llmkit.plan.render import print_plan, to_json
from llmkit.recipe.load import load_words


def validate(words: Sequence[str]) -> None:
    loaded = load_words(words)
    plan = make(loaded)
    for name in unset_keys(loaded.recipe):
        print(f"warning: the environment holds no key {name}, which an endpoint of this recipe needs")
    stages = [step.name for step in plan.steps if not step.automatic]
    automatic = len(plan.steps) - len(stages)
    print(f"ok: {len(stages)} stage{'s' * (len(stages) != 1)} ({', '.join(stages)}), {automatic} automatic evaluations")


def plan(words: Sequence[str], as_json: bool, verbose: bool) -> None:
    made = make(load_words(words))
    if as_json:
        print(to_json(made))
    else:
        print_plan(made, console(), commands=verbose)
