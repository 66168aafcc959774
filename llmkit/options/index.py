"""`llmkit index`."""

from __future__ import annotations

import argparse

from llmkit.options import parser_of


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit index", "Index documents for the search tool.")
    kinds = "jsonl, json, csv or parquet with a column of text; txt and md, cut at top headings; globs; .gz"
    made.add_argument("documents", nargs="+", metavar="DOCS", help=kinds)
    made.add_argument("--out", required=True, metavar="FOLDER", help="where the index goes")
    made.add_argument("--passage-chars", type=int, default=800, metavar="N", help="longest passage (default: 800)")
    made.add_argument("--overlap", type=int, default=100, metavar="N", help="characters repeated (default: 100)")
    made.add_argument("--text-column", default="text", metavar="NAME", help="default: text")
    made.add_argument("--title-column", default="title", metavar="NAME", help="default: title, where there is one")
    made.add_argument("--id-column", default="id", metavar="NAME", help="default: id, where there is one")
    return made
