"""Do the rewards of a recipe know right from wrong? What `llmkit rewards check` runs, without a model.

python -m llmkit.stages.rewards_check RECIPE [OVERLAY.yaml ...] [KEY=VALUE ...] [--stage NAME] [--json]

The gold solution of every problem must score 1 by every reward on correctness, and a corrupted one 0.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llmkit.artifacts.files import sha256_of
from llmkit.data.problems import Problems
from llmkit.errors import RunError, UserError
from llmkit.options.rewards_check import parser
from llmkit.plan.make import make
from llmkit.plan.step import Step
from llmkit.recipe.load import load_words
from llmkit.recipe.stages import BestOfNStage, PracticeStage
from llmkit.rewards.check import Report, check
from llmkit.stages.command import as_command
from llmkit.stages.problems import problems_of
from llmkit.stages.scoring import Scorer

CURE = "add one such as 'exact', or set 'correctness: true' on your own"
SHOWN = 5
"""Failures that are printed; `--json` has all that were kept."""


@as_command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 2 where a reward fails, and for what the user can mend."""
    args = parser().parse_args(argv)
    found = checked(chosen(args.words, args.stage))
    if not any(found.values()):
        raise UserError("rewards", f"no reward of {', '.join(found)} says whether a problem is solved", CURE)
    if args.json:
        print(
            json.dumps({name: asdict(report) for name, report in found.items() if report}, indent=2, ensure_ascii=False)
        )
    else:
        show(Console(highlight=False), found)
    return 0 if all(each is None or each.is_good for each in found.values()) else 2


def chosen(words: Sequence[str], name: str | None) -> list[Step]:
    """The stages to check. Raises RunError where there are none."""
    steps = make(load_words(words)).steps
    practising = [step for step in steps if isinstance(step.stage, (PracticeStage, BestOfNStage))]
    found = [step for step in practising if name in (None, step.name)]
    if not found:
        have = ", ".join(step.name for step in practising) or "none"
        raise RunError(f"--stage {name}" if name else "the recipe", "has no such stage that practises", f"have: {have}")
    return found


def checked(steps: Sequence[Step]) -> dict[str, Report | None]:
    """Counts and first failures of each stage's rewards; None where none is on correctness. What several stages have in
    common is read and scored once."""
    problems: dict[str, Problems] = {}
    reports: dict[tuple[str, str], Report] = {}
    found: dict[str, Report | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for step in steps:
            scorer = Scorer(step.stage.rewards, f"stage '{step.name}': rewards")
            if not scorer.correctness:
                found[step.name] = None
                continue
            data, judged = _data(step), _judged(step, scorer)
            if data not in problems:
                problems[data] = problems_of(step, Path(folder) / str(len(problems)), chat=_chats(step))
            scorer.check(problems[data], checked="some")
            if (data, judged) not in reports:
                reports[data, judged] = check(scorer.rewards, problems[data])
            found[step.name] = reports[data, judged]
    return found


def _chats(step: Step) -> bool:
    return bool(step.model and step.model.chat_template is not None)


def _data(step: Step) -> str:
    """All that its problems depend on."""
    stage = step.stage
    sources = [source.model_dump(mode="json", by_alias=True) for source in stage.data]
    return sha256_of([sources, stage.seed, stage.max_rejected, stage.dedup, _chats(step)])


def _judged(step: Step, scorer: Scorer) -> str:
    """What is tried: the rewards on correctness, whatever they weigh."""
    rewards = step.stage.rewards
    chosen = [rewards[place].model_dump(mode="json", exclude={"weight"}) for place in scorer.correctness]
    return sha256_of([chosen, [scorer.labels[place] for place in scorer.correctness]])


def show(console: Console, found: dict[str, Report | None]) -> None:
    for name, report in found.items():
        if report is None:
            console.print(f"stage '{name}': no reward says whether a problem is solved", markup=False)
            continue
        table = Table(title=f"stage '{name}'", title_justify="left")
        table.add_column("reward")
        for column in (
            "gold solutions",
            "of these not 1",
            "corrupted",
            "of these not 0",
            "rows it cannot use",
            "no gold",
        ):
            table.add_column(column, justify="right")
        for label, counts in report.counts.items():
            table.add_row(label, *(f"{number:,}" for number in asdict(counts).values()))
        console.print(table)
        for label in report.untried:
            told = f"  {label}: no row gives a right answer that it could be tried on: add 'answer' or 'solution'"
            console.print(told, markup=False, soft_wrap=True)
        for label in report.without:
            console.print(f"  {label}: cannot be tried: it names no right answer", markup=False, soft_wrap=True)
        for failure in report.failures[:SHOWN]:
            console.print(f"  {failure}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
