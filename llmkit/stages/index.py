"""Index documents for the search tool: what `llmkit index` runs.

python -m llmkit.stages.index DOCS... --out FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmkit.data.sources import read_local
from llmkit.errors import DataError
from llmkit.options.index import parser
from llmkit.stages.command import as_command
from llmkit.tools.index import Document, build_index

_TITLES = ("# ", "= ")


@as_command
def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 2 and one line for what the user can mend."""
    args = parser().parse_args(argv)
    columns = (args.text_column, args.title_column, args.id_column)
    manifest = build_index(
        _documents(args.documents, *columns),
        Path(args.out).expanduser(),
        passage_chars=args.passage_chars,
        overlap=args.overlap,
        sources=args.documents,
    )
    counts = f"{manifest.num_passages:,} passages of {manifest.num_documents:,} documents"
    print(f"{args.out}: {counts}, digest {manifest.digest[:16]}")
    print(f"in a recipe: tools: [{{name: search, index: {args.out}}}]")


def _documents(paths: Sequence[str], text: str, title: str, id: str) -> Iterator[Document]:
    """All documents in order. Raises DataError for a row without text: half an index would not be seen."""
    for path in paths:
        for raw in read_local(path):
            where = f"{raw.file}:{raw.line}"
            if raw.error:
                raise DataError(where, raw.error, "mend the row, or leave it out")
            if not isinstance(raw.value, dict) or not isinstance(raw.value.get(text), str):
                have = ", ".join(map(str, raw.value)) if isinstance(raw.value, dict) else type(raw.value).__name__
                raise DataError(where, f"it has no text in '{text}' (it has {have})", "name the column: --text-column")
            yield Document(raw.value[text], _named(raw.value, title, text), str(raw.value.get(id) or where))


def _named(row: dict[str, Any], title: str, text: str) -> str:
    """The title that a row names, or the heading that its text begins with."""
    if row.get(title):
        return str(row[title])
    first = row[text].lstrip().partition("\n")[0]
    return first.strip("#= ").strip() if first.startswith(_TITLES) else ""


if __name__ == "__main__":
    sys.exit(main())
