"""`llmkit import`: a recipe of another project becomes one of llmkit's."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from llmkit.cli.output import console
from llmkit.errors import UserError
from llmkit.importing.convert import Imported, convert
from llmkit.importing.draft import Options
from llmkit.importing.write import said, write
from llmkit.recipe.load import load
from llmkit.visible import visible


def import_recipe(file: str, system: str | None, out: str | None, options: Options) -> None:
    """Converts, writes, prints the account, and checks what was written."""
    source, target = Path(file), Path(out or f"{Path(file).stem}.llmkit.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out {out}", "is no name of a recipe", "give one that ends in .yaml")
    imported = convert(source, Options(**{**vars(options), "target": str(target)}), system)
    written = write(imported, source, target)
    _print(imported)
    counts = {fate: sum(entry.fate == fate for entry in imported.entries) for fate in ("mapped", "renamed", "listed")}
    said_counts = ", ".join(f"{count} {fate}" for fate, count in counts.items())
    print(f"{len(imported.entries)} keys: {said_counts}")
    print(f"wrote {' and '.join(map(str, written))}; try: llmkit plan {target}")
    load([target])


def _print(imported: Imported) -> None:
    """The account as a table; keys and values are another file's text."""
    table = Table(
        "key", "what became of it", "where, or why", title=f"{imported.system} -> llmkit", title_justify="left"
    )
    for entry in imported.entries:
        if entry.fate != "mapped":
            table.add_row(*(escape(visible(text)) for text in (entry.key, entry.fate, said(entry))))
    for entry in imported.added:
        table.add_row("", "its default", escape(visible(f"{entry.to}: {entry.key}")))
    for entry in imported.notes:
        table.add_row("", "to check", escape(visible(said(entry))))
    console().print(table)
