"""`llmkit run`."""

from __future__ import annotations

from collections.abc import Sequence

from llmkit.cli.output import console
from llmkit.errors import RunError
from llmkit.launch.execute import Options, asked_for, execute, select, tidy
from llmkit.launch.machines import follow, is_main
from llmkit.plan.make import make
from llmkit.plan.render import print_plan
from llmkit.recipe.load import Loaded, load_words
from llmkit.report.build import build_report
from llmkit.report.terminal import print_answers, print_summary


def run(
    words: Sequence[str],
    *,
    stage: str | None,
    start: str | None,
    step: str | None,
    dry_run: bool,
    slurm: bool,
    submit: bool,
    verbose: bool,
) -> None:
    chosen = {"--stage": stage, "--from": start, "--step": step}
    given = [word for option, name in chosen.items() if name for word in (option, name)]
    if len(given) > 2:
        raise RunError(" ".join(given), "ask for different steps", "give one of --stage, --from and --step")
    if submit and not slurm:
        raise RunError("--submit", "has no effect without --slurm", "add --slurm")
    loaded = load_words(words)
    options = Options(stage, start, step, verbose, ("llmkit", "run", *words, *given))
    if dry_run:
        plan = make(loaded)
        asked_for(plan, stage, start, step)
        print_plan(plan, console(), commands=verbose)
    elif slurm:
        _slurm(loaded, options, submit)
    else:
        _run(loaded, options)


def _run(loaded: Loaded, options: Options) -> None:
    plan, out = make(loaded), console()
    if not is_main():
        follow(plan, out, options)
        return
    execute(plan, loaded.recipe, out, options)
    with plan.run_dir.for_a_moment():
        build_report(plan.run_dir)
        out.print()
        print_summary(plan.run_dir, out)
        print_answers(plan.run_dir, out)


def _slurm(loaded: Loaded, options: Options, submitting: bool) -> None:
    """Jobs of a cluster in place of workers here."""
    from llmkit.launch.slurm import check, submit, write_jobs

    plan, out = make(loaded), console()
    steps = select(plan, options.stage, options.start, options.step)
    with plan.run_dir.locked():
        # now, since jobs of single steps must not do it beside each other
        tidy(plan, out)
        jobs = write_jobs(plan, steps, loaded.recipe)
        for job in jobs:
            out.print(str(job.script), markup=False, highlight=False, soft_wrap=True)
        out.print("sbatch --test-only takes them" if check(jobs) else "not checked: there is no sbatch here")
        if not submitting:
            out.print("nothing is submitted without --submit", markup=False)
            return
        for name, number in submit(jobs).items():
            out.print(f"{name}: job {number}", markup=False, highlight=False, soft_wrap=True)
