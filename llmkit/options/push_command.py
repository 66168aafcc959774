"""`llmkit push`."""

from __future__ import annotations

import argparse

from llmkit.options import parser_of


def parser() -> argparse.ArgumentParser:
    made = parser_of("llmkit push", "Publish a model on the Hugging Face Hub.")
    made.add_argument("target", help="run folder (what its recipe pushes, else its last model) or stage folder")
    made.add_argument("--stage", help="with a run folder: the stage whose model it is, or that pushes it")
    made.add_argument("--repo-id", help="owner/name; default: 'hub.repo_id' of the recipe's 'push' stage, or its own")
    made.add_argument("--public", action="store_true", help="for everyone to see; default: private")
    made.add_argument("--revision", help="branch (default: main)")
    made.add_argument("--tag", help="tag of the commit; default: the run's name and a hash of what is published")
    made.add_argument("--license", help="licence of the model, such as apache-2.0")
    made.add_argument("--merged", action="store_true", default=None, help="fold an adapter into its base first")
    made.add_argument("--no-datasets", dest="datasets", action="store_false", default=None, help="the model alone")
    whole = "data sets of the whole run; default: those that the model comes from or was evaluated with"
    made.add_argument("--all-datasets", dest="datasets", action="store_const", const="all", default=None, help=whole)
    made.add_argument("--dry-run", action="store_true", help="list the files and show the cards; send nothing")
    made.add_argument("--metadata", action="store_true", help="with --dry-run: show the cards' metadata, too")
    made.add_argument("--despite-bars", action="store_true", help="publish below the bars of the recipe's 'ship'")
    made.add_argument("--overwrite", action="store_true", help="replace what others than llmkit put there")
    return made
