"""Measure a judge against labelled answers: what `llmkit judge-check` runs.

python -m llmkit.stages.judge_check evals/judge/labelled.jsonl [--judge rules|self|model|openai] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from llmkit.data.files import READERS, kind_of, read_file
from llmkit.errors import DataError, LlmkitError, UserError
from llmkit.evaluate.intervals import wilson
from llmkit.knowledge.judge import PROMPT, Item, Judge, open_judge
from llmkit.knowledge.records import Verdict
from llmkit.recipe.knowledge import JudgeSpec

if TYPE_CHECKING:
    from llmkit.chat.ask import Engine

CHUNK = 256
"""Answers that are judged at a time."""
SHOWN = 40
"""Misjudged rows that are printed; `--json` has all."""
LABELS: tuple[str, ...] = tuple(label for label in get_args(Verdict) if label != "undecided")


@dataclass(frozen=True)
class Labelled:
    item: Item
    verdict: str
    where: str
    """`file:line`"""


@dataclass
class Result:
    """What a judge made of labelled answers."""

    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(label, verdict) -> number of rows."""
    misjudged: list[tuple[Labelled, str]] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        return self.confusion.total()

    @property
    def num_undecided(self) -> int:
        return sum(number for (_, verdict), number in self.confusion.items() if verdict == "undecided")

    @property
    def num_errors(self) -> int:
        return len(self.misjudged)

    def to_json(self) -> dict[str, Any]:
        """`error_rate` is the share of the decided answers; None if none was decided."""
        num_decided = self.num_rows - self.num_undecided
        interval = wilson(self.num_errors, num_decided) if num_decided else None
        return {
            "num_rows": self.num_rows,
            "num_undecided": self.num_undecided,
            "num_errors": self.num_errors,
            "error_rate": self.num_errors / num_decided if num_decided else None,
            "error_interval": list(interval) if interval else None,
            "confusion": {
                label: {verdict: self.confusion[label, verdict] for verdict in get_args(Verdict)} for label in LABELS
            },
            "misjudged": [
                {
                    "where": row.where,
                    "question": row.item.question,
                    "answers": list(row.item.accepted),
                    "answer": row.item.answer,
                    "label": row.verdict,
                    "verdict": verdict,
                }
                for row, verdict in self.misjudged
            ],
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 2 and one line for what the user can mend."""
    args = _parser().parse_args(argv)
    try:
        spec = spec_of(args)
        rows = read_labelled(Path(args.file).expanduser())
        result = check(open_the_judge(spec, args.model), rows)
    except LlmkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    if args.json:
        print(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        show(Console(soft_wrap=False, highlight=False), result)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmkit judge-check", description="Measure a judge against labelled answers.")
    parser.add_argument("file", help="rows with question, answers, answer, verdict, perhaps document")
    parser.add_argument("--judge", choices=("rules", "self", "model", "openai"), default="rules", help="default: rules")
    parser.add_argument("--model", help="run folder, model folder or Hub id; with openai: its name at the endpoint")
    parser.add_argument("--base-url", help="with openai: address of the endpoint (default: OPENAI_BASE_URL)")
    parser.add_argument("--prompt", metavar="FILE", help="Jinja prompt of your own")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


def spec_of(args: argparse.Namespace) -> JudgeSpec:
    """The judge that the options name. Raises UserError for options that do not fit together."""
    if (args.judge == "rules") == bool(args.model):
        what = "needs no --model" if args.model else "needs --model"
        raise UserError(f"--judge {args.judge}", what, "see --help")
    if args.judge == "rules" and args.prompt:
        raise UserError("--prompt", "rules have none", "choose another --judge")
    name = args.model if args.judge in ("model", "openai") else None
    try:
        return JudgeSpec(by=args.judge, name_or_path=name, base_url=args.base_url, prompt=args.prompt)
    except ValidationError as error:
        raise UserError(f"--judge {args.judge}", error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def open_the_judge(spec: JudgeSpec, target: str | None) -> Judge:
    """A local model may be named by the run that made it. Raises ModelError, RunError or UserError."""
    if spec.by == "rules":
        return open_judge(spec, None)
    PROMPT.load(spec.prompt)  # before the model, which takes longer
    assert target is not None
    engine, chat = _endpoint(spec, target) if spec.by == "openai" else _local(target)
    return open_judge(spec, engine, chat=chat)


# Both bring torch, which rules do not need.
def _endpoint(spec: JudgeSpec, name: str) -> tuple[Engine, bool]:
    from llmkit.generation.remote import OpenAIEngine

    return OpenAIEngine(name, spec.base_url, spec.api_key_env, spec.timeout, spec.max_retries, spec.concurrency), True


def _local(target: str) -> tuple[Engine, bool]:
    import torch

    from llmkit.chat.template import template_of
    from llmkit.generation.engine import open_engine
    from llmkit.modeling.load import load_model, load_tokenizer
    from llmkit.stages.chat import model_of

    path, cuda = model_of(target, None), torch.cuda.is_available()
    tokenizer = load_tokenizer(path)
    model = load_model(path, dtype="bfloat16" if cuda else "float32").to("cuda" if cuda else "cpu").eval()
    return open_engine("transformers", tokenizer, model=model), template_of(tokenizer) is not None


def read_labelled(path: Path) -> Iterator[Labelled]:
    """Rows of a labelled file, one at a time.

    Raises:
        DataError: the file is missing, empty or of an unknown kind, or a row that cannot be used, with its line.
    """
    if not path.is_file():
        raise DataError(str(path), "no such file", f"the current folder is {Path.cwd()}")
    if not kind_of(path):
        raise DataError(str(path), "is of no known kind", f"known are {' '.join(READERS)}, each also with .gz")
    empty = True
    for raw in read_file(path):
        empty = False
        where = f"{raw.file}:{raw.line}"
        problem = raw.error or _problem(raw.value)
        if problem:
            raise DataError(where, problem, f"a row has question, answers, answer, verdict ({', '.join(LABELS)})")
        row = raw.value
        accepted = (row["answers"],) if isinstance(row["answers"], str) else tuple(row["answers"])
        item = Item(row["question"], accepted, row["answer"], row.get("document") or "")
        yield Labelled(item, row["verdict"], where)
    if empty:
        raise DataError(str(path), "holds no rows", "label some answers")


def _problem(row: Any) -> str:
    """Why a row cannot be used; empty for a good one."""
    if not isinstance(row, dict):
        return "is no object"
    for name in ("question", "answer", "verdict"):
        if not isinstance(row.get(name), str):
            return f"'{name}' is missing" if name not in row else f"'{name}' is no text"
    accepted = row.get("answers")
    texts = [accepted] if isinstance(accepted, str) else accepted
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        return "'answers' is no text and no list of texts"
    if not isinstance(row.get("document") or "", str):
        return "'document' is no text"
    if not row["question"].strip():
        return "'question' is empty"
    return "" if row["verdict"] in LABELS else f"the verdict '{row['verdict']}' is none of them"


def check(judge: Judge, rows: Iterator[Labelled]) -> Result:
    """Judge all rows and compare with their labels."""
    result = Result()
    chunk: list[Labelled] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            _count(judge, chunk, result)
            chunk = []
    if chunk:
        _count(judge, chunk, result)
    return result


def _count(judge: Judge, rows: Sequence[Labelled], result: Result) -> None:
    for row, verdict in zip(rows, judge.judge([row.item for row in rows]), strict=True):
        result.confusion[row.verdict, verdict] += 1
        if verdict not in (row.verdict, "undecided"):
            result.misjudged.append((row, verdict))


def show(console: Console, result: Result) -> None:
    """Error rate, confusion table, misjudged rows."""
    numbers = result.to_json()
    if numbers["error_rate"] is None:
        console.print(f"all {result.num_rows} answers are undecided")
        return
    low, high = numbers["error_interval"]
    decided = result.num_rows - result.num_undecided
    console.print(
        f"error {numbers['error_rate']:.1%} ({low:.1%} to {high:.1%}, 95 %): {result.num_errors} of {decided} answers; "
        f"{result.num_undecided} undecided"
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
