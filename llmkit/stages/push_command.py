"""What `llmkit push` runs: publishes a run's last model, or a stage's.

python -m llmkit.stages.push_command runs/tiny-assistant --repo-id me/assistant --dry-run
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmkit.errors import UserError
from llmkit.hub.adapter import scratch_in
from llmkit.hub.push import CARD, Ready, prepare, send
from llmkit.hub.remote import Package
from llmkit.hub.report import report_files
from llmkit.hub.stated import stated
from llmkit.hub.subject import Subject, located, subject_in
from llmkit.options.push_command import parser
from llmkit.plan.render import size
from llmkit.recipe.hub import HubSpec, PushStage
from llmkit.recipe.source import read_yaml
from llmkit.stages.command import as_command
from llmkit.visible import visible


@as_command
def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 2 and one line for what the user can mend."""
    args = parser().parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    run, asked = located(args.target, args.stage)
    model, fields = stated(read_yaml(run.recipe).data, asked)
    subject, stage = subject_in(run, model), told(args, fields)
    assert stage.hub is not None
    _say(console, chosen(subject, is_asked=asked is not None))
    with scratch_in(run.path) as scratch:
        ready = prepare(
            subject,
            stage.hub,
            stage.ship,
            scratch,
            despite_bars=stage.despite_bars,
            report=report_files(subject.run),
        )
        if args.dry_run:
            show(console, ready, stage, metadata=args.metadata)
            return
        _warn(console, ready)
        for one in send(ready.packages, stage.hub, overwrite=stage.overwrite, say=lambda text: _say(console, text)):
            _say(console, f"published {one.url} at '{one.tag}' (commit {one.commit[:8]})")


def told(args: argparse.Namespace, fields: dict[str, Any]) -> PushStage:
    """What the recipe states with what the command line says laid over. Raises UserError."""
    named = {name: getattr(args, name) for name in ("repo_id", "revision", "tag", "license", "merged", "datasets")}
    hub = {**fields["hub"], **{name: value for name, value in named.items() if value is not None}}
    if args.public:
        hub["private"] = False
    if "repo_id" not in hub:
        raise UserError("--repo-id", "is needed: the recipe has no 'hub'", "give one, such as --repo-id me/assistant")
    try:
        spec = HubSpec.model_validate(hub)
        said = {name: fields[name] or getattr(args, name) for name in ("despite_bars", "overwrite")}
        return PushStage.model_validate({"kind": "push", "hub": spec, "ship": fields["ship"], **said})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(where, first["msg"].removeprefix("Value error, ")) from None


def chosen(subject: Subject, *, is_asked: bool) -> str:
    """Whose model is published, and why it is that one where nobody said."""
    name = subject.model.name
    others = [made.name for made in subject.stages if made.speaks and made.name != name]
    if is_asked or not others:
        return f"publishing the model of stage '{name}'"
    return f"publishing the model of stage '{name}'; another by --stage: {', '.join(others)}"


def _warn(console: Console, ready: Ready) -> None:
    for words in ready.missed:
        console.print(Text(f"below a bar: {words}", style="yellow"))
    for words in ready.conflicts:
        console.print(Text(f"licence: {words}", style="yellow"))


def show(console: Console, ready: Ready, stage: PushStage, *, metadata: bool) -> None:
    """Files with their sizes and the cards, between two summaries."""
    _sum_up(console, ready, stage)
    for package in ready.packages:
        console.print(Text(f"\n{_titled(package, stage)}", style="bold"))
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(justify="right")
        table.add_column(overflow="fold")
        for item in package.items:
            table.add_row(size(item.size), Text(visible(item.path)))
        table.add_row(size(package.size), Text(f"{len(package.items)} files", style="bold"))
        console.print(table)
        card = next(item for item in package.items if item.path == CARD)
        console.print(Text(f"\n{CARD}:\n", style="bold"))
        console.print(_card("".join(card.texts()), metadata), markup=False)
    if ready.left_out:
        console.print(Text(f"not published: {', '.join(ready.left_out)}", style="dim"))
    console.print()
    _sum_up(console, ready, stage)


def _sum_up(console: Console, ready: Ready, stage: PushStage) -> None:
    console.print(Text("dry run: nothing is sent", style="bold"))
    for package in ready.packages:
        _say(console, f"{_titled(package, stage)}: {len(package.items)} files, {size(package.size)}")
    assert stage.hub is not None
    if stage.hub.license:
        _say(console, f"licence: {visible(stage.hub.license)}")
    num_bars = sum(len(bars) for bars in stage.ship.values())
    _say(console, f"bars: {num_bars}, of which {len(ready.missed)} are missed" if num_bars else "bars: none")
    _warn(console, ready)


def _titled(package: Package, stage: PushStage) -> str:
    assert stage.hub is not None
    seen = "private" if stage.hub.private else "public"
    return f"{package.repo_type} {package.repo_id} ({seen}), branch {stage.hub.revision}, tag {package.tag}"


def _card(text: str, metadata: bool) -> str:
    """The metadata is for the Hub: it is counted, unless asked for."""
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    if metadata:
        return text
    return f"--- {len(head.splitlines())} lines of metadata for the Hub: --metadata shows them ---\n{body}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
