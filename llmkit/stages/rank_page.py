"""Let people rank completions on a page, and export what they decided: what `llmkit rank` runs.

python -m llmkit.stages.rank_page PATH [--rater NAME] [--repeat 0.1] ...
python -m llmkit.stages.rank_page export PATH --to preferences.jsonl
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from llmkit.artifacts.files import to_line, write_text
from llmkit.errors import DataError, RunError, UserError
from llmkit.options import rank_export, rank_page
from llmkit.preference.pairs import Pairs, pairs_of
from llmkit.preference.rankings import clean_name
from llmkit.preference.rollouts import find_rollouts, read_rollouts
from llmkit.preference.session import Session
from llmkit.preference.store import FILE, open_store, standing_in
from llmkit.stages.command import as_command

PAIRS = "preferences.jsonl"
"""What the pairs of an export are called where no name is given for them."""


@as_command
def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 2 and one line for what the user can mend."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["export"]:
        export(rank_export.parser().parse_args(words[1:]))
    else:
        rank(rank_page.parser().parse_args(words))


def rank(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C, then says how far the raters are."""
    if not 0 <= args.repeat <= 1:
        raise UserError("--repeat", f"is {args.repeat:g}", "give a share from 0 to 1")
    if args.port is not None and not 0 <= args.port < 65536:
        raise UserError("--port", f"is {args.port}", "give 0 to 65535")
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise UserError("llmkit rank", "starlette and uvicorn are not installed", 'pip install "llmkit[ui]"')
    # they belong to an extra
    from llmkit.preference.page.serve import open_page, serve

    rollouts = find_rollouts(Path(args.path).expanduser())
    rankings = args.out or rollouts.with_name(FILE)
    rater = clean_name(args.rater or _own_name())
    items = read_rollouts(rollouts)

    def ready(url: str) -> None:
        print(f"rank at {url}\ndecisions go to {rankings}; end with Ctrl-C", flush=True)
        if not args.no_browser:
            open_page(rankings, url)

    with open_store(rankings) as store:
        if store.num_cut:
            print(f"{rankings}: {store.num_cut} bytes of a decision that was never saved are cut off")
        session = Session(items, store, args.seed, args.repeat)
        serve(session, rankings, rater, args.port, ready)
        print("\n".join(_told(session)))


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise UserError("--rater", "you have no name on this machine", "say who ranks: `--rater NAME`") from None


def _told(session: Session) -> list[str]:
    found = session.results()
    lines = [f"{row['rater']}: {row['done']} of {row['total']} done" for row in found["raters"]] or ["nothing decided"]
    if found["num_stale"]:
        lines.append(f"{found['num_stale']} decisions do not count: prompts or answers have changed since")
    return lines


def export(args: argparse.Namespace) -> None:
    """Raises DataError where no ranking makes a pair."""
    rollouts = find_rollouts(Path(args.path).expanduser())
    rankings = args.rankings or rollouts.with_name(FILE)
    if args.to.is_dir():
        raise RunError(f"--to {args.to}", "is a folder", f"name a file in it: `--to {args.to / PAIRS}`")
    if args.to.exists() and any(args.to.samefile(read) for read in (rollouts, rankings) if read.exists()):
        raise RunError(f"--to {args.to}", "is a file that is read here", "give another name")
    items = {item.id: item for item in read_rollouts(rollouts)}
    now = standing_in(rankings, items)
    found = pairs_of(now.decisions.values(), items)
    left_out = _left_out(found, len(now.stale))
    if not found.rows:
        what = f"holds no ranking that makes a pair{f' ({left_out})' if left_out else ''}"
        raise DataError(str(rankings), what, f"rank some items: `llmkit rank {args.path}`")
    write_text(args.to, b"".join(map(to_line, found.rows)).decode("utf-8"), setting="--to")
    print(f"{args.to}: {len(found.rows)} pairs of {len(found.items)} prompts by {', '.join(sorted(found.raters))}")
    if left_out:
        print(f"left out: {left_out}")


def _left_out(found: Pairs, num_stale: int) -> str:
    counts = {
        "tied pairs": found.num_tied,
        "pairs with one text": found.num_same_text,
        "skipped": found.num_skipped,
        "on flagged prompts": found.num_flagged,
        "repeats": found.num_repeats,
        "on texts that have changed": num_stale,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


if __name__ == "__main__":
    sys.exit(main())
