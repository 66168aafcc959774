"""`llmkit arena RUN`: how often each model's answers are better than each other one's, and the ladder that follows.

Two sources. Evaluations `preference` asked all models the same prompts and kept how good each answer is, or what a
judge said of it and the baseline's. Rankings put answers of several models in order (a `rollout` stage with
`models`), by people, a model, a function or a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations, product
from typing import Any

from rich.console import Console
from rich.table import Table

from llmkit.artifacts.files import write_json
from llmkit.artifacts.rundir import RunDir, StageDir, open_run
from llmkit.errors import RunError
from llmkit.evaluate.ladder import Comparison, Duel, Outcome, Rating, duels, ladder
from llmkit.evaluate.results import Document, read_documents
from llmkit.knowledge.store import read_rows
from llmkit.options.arena import parser
from llmkit.preference.rollouts import FILE as ROLLOUTS
from llmkit.preference.rollouts import read_rollouts
from llmkit.preference.store import standing_in
from llmkit.stages.command import as_command

FILE = "arena.json"
GOLD, JUDGED = "gold", "judge_win"


@as_command
def main(argv: Sequence[str] | None = None) -> None:
    """Exit code 2 and one line for what the user can mend."""
    args = parser().parse_args(argv)
    show(open_run(args.run), args.by, as_json=args.json)


def show(run: RunDir, by: str | None, *, as_json: bool) -> None:
    """Prints the ladder, and writes `arena.json` beside the stages. Raises RunError where nothing can be compared."""
    found = comparisons(run)
    if by is not None and by not in found:
        raise RunError(f"--by {by}", "no such comparisons", f"have: {', '.join(found) or 'none'}")
    chosen = [one for name, each in found.items() if by in (None, name) for one in each]
    if not chosen:
        cure = "add an evaluation 'preference' to the recipe, or rank answers of several models"
        raise RunError(str(run.path), "holds no comparisons of models", cure)
    ratings = ladder(chosen)
    pairs = duels(chosen)
    told = {
        "by": by or ", ".join(found),
        "num_comparisons": len(chosen),
        "ratings": [asdict(one) for one in ratings],
        "pairs": [asdict(one) for one in pairs],
    }
    write_json(run.path / FILE, told)
    console = Console(highlight=False)
    if as_json:
        console.print_json(data=told)
        return
    console.print(_table(ratings))
    console.print()
    console.print(_pairs(pairs))
    console.print(f"{len(chosen):,} comparisons by {told['by']}; intervals of 95 % over prompts")


def comparisons(run: RunDir) -> dict[str, list[Comparison]]:
    """By evaluation or stage."""
    found = {f"{name}": made for name, made in _evaluated(run)}
    found |= {stage.name: made for stage in run.stages() if (made := list(_ranked(stage)))}
    return {name: made for name, made in found.items() if made}


def _evaluated(run: RunDir) -> Iterator[tuple[str, list[Comparison]]]:
    """Of every evaluation `preference`: each model's latest answers against each other model's by gold, and against its
    baseline's by a judge."""
    answers: dict[str, dict[str, list[tuple[str, float]]]] = {}
    judged: dict[str, list[Comparison]] = {}
    for stage in run.stages():
        manifest = stage.manifest()
        if manifest is None or manifest.kind != "evaluate":
            continue
        specs = [spec for spec in manifest.settings.get("evals", []) if spec.get("task") == "preference"]
        measured = manifest.parent.stage if manifest.parent else "base"
        for spec in specs:
            documents = read_documents(stage.path / "evals", spec["name"])
            gold = [(d.prompt, d.metrics[GOLD]) for d in documents if GOLD in d.metrics]
            answers.setdefault(spec["name"], {})[measured] = gold
            judged.setdefault(f"{spec['name']} by judge", []).extend(_judged(documents, measured, spec.get("baseline")))
    yield from judged.items()
    for name, models in answers.items():
        made = []
        for first, second in combinations(models, 2):
            for (prompt, one), (other_prompt, other) in zip(models[first], models[second], strict=False):
                if prompt == other_prompt:
                    made.append(Comparison(prompt, first, second, _outcome(one - other)))
        yield name, made


def _judged(documents: Sequence[Document], model: str, baseline: str | None) -> Iterator[Comparison]:
    """What a judge said of a model's answers and its baseline's."""
    for document in documents:
        if baseline is not None and JUDGED in document.metrics:
            yield Comparison(document.prompt, model, baseline, _outcome(document.metrics[JUDGED] - 0.5))


def _ranked(stage: StageDir) -> Iterator[Comparison]:
    """Of a `rank` stage: answers of different models to one prompt. What two models both wrote is a tie of theirs."""
    manifest = stage.manifest()
    if manifest is None or manifest.kind != "rank":
        return
    stages = {each.name: each for each in RunDir(stage.path.parent).stages()}
    source = stages.get(manifest.settings["rollouts"])
    if source is None or source.manifest() is None:
        return  # the answers are being made anew
    rollouts = source.data / ROLLOUTS
    models = {(row["id"], one["id"]): _writers(one) for row in read_rows(rollouts) for one in row["completions"]}
    items = {item.id: item for item in read_rollouts(rollouts)}
    decisions = standing_in(stage.data / "rankings.jsonl", items).decisions.values()
    flagged = {decision.item for decision in decisions if decision.flagged}
    for decision in decisions:
        # a second look measures the rater, and what anybody flagged is not to be used
        if decision.repeat or decision.item in flagged:
            continue
        writers = {answer: models[decision.item, answer] for answer in decision.ranks}
        for both in writers.values():
            yield from (Comparison(decision.item, one, other, "tie") for one, other in combinations(both, 2))
        for first, second in combinations(decision.ranks, 2):
            outcome = _outcome(decision.ranks[second] - decision.ranks[first])
            for one, other in product(writers[first], writers[second]):
                if one != other:
                    yield Comparison(decision.item, one, other, outcome)


def _writers(completion: Mapping[str, Any]) -> list[str]:
    """The models that gave an answer; none where nobody says."""
    model = completion.get("model")
    return list(completion.get("models") or ([model] if model else []))


def _outcome(difference: float) -> Outcome:
    return "first" if difference > 0 else "second" if difference < 0 else "tie"


def _table(ratings: Sequence[Rating]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "model", "rating", "95 %", "wins", "comparisons"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for place, one in enumerate(ratings, start=1):
        interval = f"{one.low:.0f} to {one.high:.0f}"
        numbers = (f"{one.rating:.0f}", interval, f"{one.win_rate:.1%}", f"{one.num_comparisons:,}")
        table.add_row(str(place), one.model, *numbers)
    return table


def _pairs(found: Sequence[Duel]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("model", "against", "wins", "95 %", "ties", "comparisons"):
        table.add_column(name, justify="left" if name in ("model", "against") else "right")
    for one in found:
        interval = f"{one.low:.1%} to {one.high:.1%}" if one.low is not None and one.high is not None else ""
        numbers = (f"{one.win_rate:.1%}", interval, f"{one.num_ties:,}", f"{one.num_comparisons:,}")
        table.add_row(one.model, one.other, *numbers)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
