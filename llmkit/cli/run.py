"""`llmkit run`."""

from __future__ import annotations

from collections.abc import Sequence

from llmkit.cli.output import console
from llmkit.launch.execute import Options, execute
from llmkit.plan.make import make
from llmkit.plan.render import print_plan
from llmkit.recipe.load import load_words
from llmkit.report.build import build_report
from llmkit.report.terminal import print_answers, print_summary


def run(words: Sequence[str], stage: str | None, start: str | None, dry_run: bool, verbose: bool) -> None:
    loaded = load_words(words)
    plan = make(loaded)
    out = console()
    if dry_run:
        print_plan(plan, out)
        return
    chosen = [*(("--stage", stage) if stage else ()), *(("--from", start) if start else ())]
    execute(plan, loaded.recipe, out, Options(stage, start, verbose, ("llmkit", "run", *words, *chosen)))
    build_report(plan.run_dir)
    out.print()
    print_summary(plan.run_dir, out)
    print_answers(plan.run_dir, out)
