"""`llmkit eval MODEL --tasks a,b [--against OTHER]`: standard benchmarks outside of a recipe, for one model or for two
on the same documents.

Answers are kept by model (its weights, not its name) and request, so that a stopped evaluation goes on where it was and
a second one asks only what is new.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import datasets
import torch
from rich.console import Console
from rich.progress import Progress
from transformers.utils import logging as transformers_logging

from llmkit.artifacts.files import sha256_of, write_json
from llmkit.errors import UserError
from llmkit.evaluate.answers import Answers, identity_of
from llmkit.evaluate.endpoint import EndpointModel
from llmkit.evaluate.harness import Prepared, prepare_tasks, quiet, run_on
from llmkit.evaluate.model import EvalModel
from llmkit.evaluate.results import TaskResult
from llmkit.evaluate.rows import interval_of
from llmkit.evaluate.versus import differences
from llmkit.generation.remote import OpenAIEngine
from llmkit.modeling.load import load_model, load_tokenizer, stored_dtype
from llmkit.options.eval_command import API_KEY_ENV, BATCH_SIZE, CONCURRENCY, FILE, parser
from llmkit.recipe.schema import EvalSpec
from llmkit.stages.command import as_command
from llmkit.stages.eval_table import print_differences, print_results
from llmkit.stages.named import model_of

WIDTH = 200
"""Characters of a line that goes to a file or another program."""


@dataclass(frozen=True)
class Measured:
    """One model's results, and how many requests were made and how many were known."""

    name: str
    results: list[TaskResult]
    num_asked: int
    num_found: int


@as_command
def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 2 and one line for what the user can mend."""
    args = parser().parse_args(argv)
    specs = specs_of(args)
    if (args.target is None) == (args.base_url is None):
        raise UserError("llmkit eval", "takes either a MODEL or --base-url", "give one")
    if (args.base_url is None) != (args.model is None):
        raise UserError("--base-url", "goes with --model, the name that the endpoint knows", "give both or neither")
    refuse_idle(args)
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    first = at_endpoint(args, args.model, specs) if args.base_url else at_home(args, args.target, args.stage, specs)
    second = None
    if args.against:
        second = at_home(args, args.against, args.against_stage, specs, "against")
    elif args.against_model:
        second = at_endpoint(args, args.against_model, specs, "against")
    tell(args, [spec.task for spec in specs], first, second)


def refuse_idle(args: argparse.Namespace) -> None:
    """Raises UserError for an option that has no effect beside the others."""
    at_home = args.base_url is None
    idle = {
        "--against-stage": (args.against_stage, args.against is None, "without --against"),
        "--against-model": (args.against_model, at_home, "without --base-url"),
        "--stage": (args.stage, not at_home, "with --base-url"),
        "--concurrency": (args.concurrency, at_home, "without --base-url"),
        "--api-key-env": (args.api_key_env, at_home, "without --base-url"),
        "--batch-size": (args.batch_size, not at_home and args.against is None, "where no model is loaded here"),
        "--cache": (args.cache, args.no_cache, "with --no-cache"),
    }
    for name, (value, has_none, beside) in idle.items():
        if value is not None and has_none:
            raise UserError(name, f"has no effect {beside}", "remove it")
    if args.against is not None and args.against_model is not None:
        raise UserError("--against-model", "goes not with --against", "give one of them")
    args.concurrency, args.batch_size = args.concurrency or CONCURRENCY, args.batch_size or BATCH_SIZE
    args.api_key_env = args.api_key_env or API_KEY_ENV


def specs_of(args: argparse.Namespace) -> list[EvalSpec]:
    """Raises UserError for options that fit no task."""
    names = [name.strip() for name in args.tasks.split(",") if name.strip()]
    data = dict(each.partition("=")[::2] for each in args.data)
    if missing := [name for name, folder in data.items() if name not in names or not folder]:
        raise UserError(f"--data {missing[0]}", "is no TASK=FOLDER of a task in --tasks", f"have: {', '.join(names)}")
    for name in ("limit", "batch_size", "concurrency"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}", "must be at least 1")
    if not names or (args.num_fewshot or 0) < 0:
        raise UserError("--num-fewshot" if names else "--tasks", "cannot be less than 0" if names else "names no task")
    return [
        EvalSpec(
            task=name,
            include_path=args.include_path,
            num_fewshot=args.num_fewshot,
            limit=args.limit,
            raw=args.raw,
            data=data.get(name),
            allow_code_execution=args.allow_code_execution,
        )
        for name in names
    ]


def at_home(
    args: argparse.Namespace, target: str, stage: str | None, specs: list[EvalSpec], folder: str = "model"
) -> Measured:
    """A model that is loaded here. Raises ModelError, RunError or DataError."""
    path, revision = model_of(target, stage)
    tokenizer = load_tokenizer(path, revision)
    tasks = prepare_tasks(specs, use_chat_template=bool(tokenizer.chat_template), seed=args.seed)
    model = load_model(path, dtype=stored_dtype(path, revision), revision=revision)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    answers = _answers(args, None if args.no_cache else identity_of(model, tokenizer))
    with quiet():
        lm = EvalModel(model, tokenizer, batch_size=args.batch_size, seed=args.seed, answers=answers)
    return _measure(args, target, lm, answers, tasks, folder)


def at_endpoint(args: argparse.Namespace, name: str, specs: list[EvalSpec], folder: str = "model") -> Measured:
    """A model that is served. Its answers are kept by address and name, which is all that is known of it."""
    engine = OpenAIEngine(name, base_url=args.base_url, api_key_env=args.api_key_env, concurrency=args.concurrency)
    answers = _answers(args, sha256_of(["endpoint", args.base_url, name]))
    lm = EndpointModel(engine, name, seed=args.seed, answers=answers)
    tasks = prepare_tasks(specs, use_chat_template=True, seed=args.seed)
    return _measure(args, name, lm, answers, tasks, folder)


def _answers(args: argparse.Namespace, identity: str | None) -> Answers | None:
    if args.no_cache or identity is None:
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmkit" / "answers"
    return Answers(Path(args.cache).expanduser() if args.cache else home, identity)


def _measure(
    args: argparse.Namespace,
    name: str,
    lm: EvalModel | EndpointModel,
    answers: Answers | None,
    tasks: list[Prepared],
    folder: str,
) -> Measured:
    console = Console(stderr=True)
    with Progress(console=console, transient=True) if console.is_terminal else nullcontext() as bar:
        place = bar.add_task(name, total=None) if bar is not None else None

        def show(done: int, total: int) -> None:
            if bar is not None and place is not None:
                bar.update(place, completed=done, total=total)

        out = Path(args.out).expanduser() / folder if args.out else None
        results = run_on(lm, tasks, out_dir=out, progress=show)
    return Measured(name, results, answers.num_asked if answers else 0, answers.num_found if answers else 0)


def tell(args: argparse.Namespace, tasks: list[str], first: Measured, second: Measured | None) -> None:
    found = differences(first.results, second.results, tasks, seed=args.seed) if second else []
    both = [first, second] if second else [first]
    told: dict[str, Any] = {
        "models": [measured.name for measured in both],
        "results": [rows_of(measured, args.seed) for measured in both],
        "differences": [asdict(each) for each in found],
        "requests": [{"asked": measured.num_asked, "known": measured.num_found} for measured in both],
        "warnings": [text for measured in both for text in warnings_of(measured)],
    }
    if args.out:
        write_json(Path(args.out).expanduser() / FILE, told)
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if not console.is_terminal:  # a file has no edge to wrap at
        console.width = WIDTH
    print_results(console, told["models"], told["results"])
    if second is not None:
        print_differences(console, told["models"], found)
    _foot(console, told)


def rows_of(measured: Measured, seed: int) -> list[dict[str, Any]]:
    """One row for each task and metric that is a number."""
    rows = []
    for result in measured.results:
        for metric in result.metrics:
            if isfinite(metric.value):
                low, high = interval_of(result, metric, seed) or (None, None)
                counts = {"num_samples": metric.num_samples, "num_fewshot": result.num_fewshot}
                own = {"task": result.task, "metric": metric.name, "value": metric.value}
                rows.append({**own, "low": low, "high": high, **counts})
    return rows


def warnings_of(measured: Measured) -> list[str]:
    """Also of every figure that is left out because it is not a finite number."""
    found = []
    for result in measured.results:
        bad = [metric for metric in result.metrics if not isfinite(metric.value)]
        found += [f"{measured.name}: {result.task}: {each.name} is {each.value} and is left out" for each in bad]
        found += result.warnings
    return found


def _foot(console: Console, told: dict[str, Any]) -> None:
    for name, requests in zip(told["models"], told["requests"], strict=True):
        if requests["known"]:
            line = f"{name}: {requests['known']:,} answers were known, {requests['asked']:,} requests were made"
            console.print(line, style="dim", markup=False)
    for warning in told["warnings"]:
        console.print(warning, style="yellow", markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
