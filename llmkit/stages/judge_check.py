"""Measure a judge against labelled answers: what `llmkit judge-check` runs.

python -m llmkit.stages.judge_check [labelled.jsonl] [--judge rules|self|model|openai] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from llmkit.errors import UserError
from llmkit.knowledge.judge import PROMPT, Judge, open_judge
from llmkit.knowledge.records import Verdict
from llmkit.options.judge_check import parser
from llmkit.recipe.knowledge import JudgeSpec
from llmkit.recipe.unread import unread_by_engine
from llmkit.stages.command import as_command
from llmkit.stages.labelled import LABELS, Result, check, read_labelled

SHOWN = 40
"""Misjudged rows that are printed; `--json` has all."""


@as_command
def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 2 and one line for what the user can mend."""
    args = parser().parse_args(argv)
    spec = spec_of(args)
    rows = read_labelled(Path(args.file).expanduser())
    result = check(open_the_judge(spec, args.model), rows)
    if args.json:
        print(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    check_decided(args.judge, result)
    if not args.json:
        show(Console(soft_wrap=False, highlight=False), result)


def spec_of(args: argparse.Namespace) -> JudgeSpec:
    """The judge that the options name. Raises UserError for options that do not fit together."""
    where = f"--judge {args.judge}"
    if (args.judge == "rules") == bool(args.model):
        what = "needs no --model" if args.model else "needs --model"
        raise UserError(where, what, "see --help")
    given = {key: value for key, value in vars(args).items() if key in JudgeSpec.model_fields and value is not None}
    if args.judge in ("model", "openai"):
        given["name_or_path"] = args.model
    try:
        spec = JudgeSpec(by=args.judge, **given)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            " ".join(map(_option, first["loc"])) or where, first["msg"].removeprefix("Value error, ")
        ) from error
    if unread := ", ".join(_option(name) for name, _ in unread_by_engine(spec)):
        raise UserError(where, f"has no use for {unread}", "leave it out, or choose another --judge")
    return spec


def _option(name: object) -> str:
    return f"--{str(name).replace('_', '-')}"


def open_the_judge(spec: JudgeSpec, target: str | None) -> Judge:
    """A local model may be named by the run that made it. Raises ModelError, RunError or UserError."""
    if spec.by == "rules":
        return open_judge(spec, None)
    PROMPT.load(spec.prompt)  # before the model, which takes longer
    assert target is not None
    # these bring torch, which rules do not need
    from llmkit.stages.engines import own_engine
    from llmkit.stages.named import model_of

    if spec.by == "model":
        path, revision = model_of(target, None)
        if revision and spec.revision:
            raise UserError("--revision", f"'{target}' names one, too", "leave one of them out")
        spec = spec.model_copy(update={"name_or_path": path, "revision": revision or spec.revision})
    engine, chat = own_engine(spec, spec.by)
    return open_judge(spec, engine, chat=chat)


def check_decided(judge: str, result: Result) -> None:
    """Raises UserError for a judge that is out of order: then only rules have decided anything."""
    if result.num_asked and result.failures.total() == result.num_asked:
        what = f"left all {result.num_asked} answers undecided that it was asked about{result.often}"
        raise UserError(f"--judge {judge}", what, "check that it runs, and what it replies to the prompt")


def show(console: Console, result: Result) -> None:
    """Error rate, confusion table, misjudged rows."""
    numbers = result.to_json()
    low, high = numbers["error_interval"]
    decided = result.num_rows - result.num_undecided
    console.print(
        f"error {numbers['error_rate']:.1%} ({low:.1%} to {high:.1%}, 95 %): {result.num_errors} of {decided} answers; "
        f"{result.num_undecided} undecided{result.often}",
        markup=False,
        soft_wrap=True,
    )
    console.print(_confusion(result))
    for row, verdict in result.misjudged[:SHOWN]:
        item = row.item
        text = f"{row.where}: labelled {row.verdict}, judged {verdict}\n  {item.question}\n  {item.answer!r}"
        console.print(f"{text}\n  accepted: {'; '.join(item.accepted)[:200]}", markup=False)
    if result.num_errors > SHOWN:
        console.print(f"... and {result.num_errors - SHOWN} more (--json has all)")


def _confusion(result: Result) -> Table:
    judged = [verdict for verdict in get_args(Verdict) if verdict != "undecided" or result.num_undecided]
    table = Table(title="rows: label, columns: verdict", title_justify="left")
    table.add_column("")
    for verdict in judged:
        table.add_column(verdict, justify="right")
    for label in LABELS:
        table.add_row(label, *(str(result.confusion[label, verdict]) for verdict in judged))
    return table


if __name__ == "__main__":
    sys.exit(main())
