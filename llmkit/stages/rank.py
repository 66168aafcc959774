"""Puts the answers of a `rollout` stage in order: by people, a model, a function, or a file of rankings.

accelerate launch --config_file recipes/accelerate/cpu/single.yaml -m llmkit.stages.rank recipe.yaml --stage rank

data/rankings.jsonl    every decision: rater, seconds, order shown, ranks
data/train.jsonl       {"prompt", "answers", "rankings"}: one row a prompt, one list of ranks a rater; of answers with
                       tools these are all turns and results, and "tools" has their schemas
data/pairs.jsonl       {"prompt", "chosen", "rejected", ...}: all pairs of which one is ranked above the other

People's rankings lie in the run's `rankings/<stage>/`, which no stage clears.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from llmkit.artifacts.manifest import DataSummary, Manifest, Sample
from llmkit.artifacts.rundir import RANKINGS, RunDir
from llmkit.chat.turn import last_text
from llmkit.errors import RunError, UserError
from llmkit.knowledge.store import read_rows, writing
from llmkit.preference.agreement import between, ceilings, contradicting, with_oneself
from llmkit.preference.labelling import Scores, noise_scale, ranked, right_share
from llmkit.preference.pairs import Pairs, pairs_of
from llmkit.preference.rankings import Decision
from llmkit.preference.rollouts import FILE as ROLLOUTS
from llmkit.preference.rollouts import Item, read_rollouts
from llmkit.preference.store import standing_in
from llmkit.recipe.preference import LabellerSpec
from llmkit.recipe.stages_preference import RankStage
from llmkit.stages.common import Worker, main, where_of
from llmkit.stages.preferring import labelled_by
from llmkit.stages.rank_by_judge import by_judge

SLICE = 64
"""Prompts whose answers a function scores at a time."""
Columns = Mapping[str, Any]


def run(worker: Worker) -> Manifest:
    stage = rank_stage(worker)
    source = Path(worker.file.data_stages[stage.rollouts]) / "data" / ROLLOUTS
    items = {item.id: item for item in read_rollouts(source)}
    decisions, metrics = _RANKERS[stage.by](worker, source, items)
    return keep(worker, items, decisions, metrics) if worker.is_main else worker.manifest()


def rank_stage(worker: Worker) -> RankStage:
    stage = worker.file.stage
    assert isinstance(stage, RankStage), stage.kind
    return stage


def by_labeller(worker: Worker, source: Path, items: Mapping[str, Item]) -> tuple[list[Decision], dict[str, float]]:
    spec = rank_stage(worker).labeller
    assert spec is not None
    listed = list(items.values())
    columns = [row.get("columns", {}) for row in read_rows(source)]
    started = time.monotonic()
    scores = scores_of(spec, listed, columns, lambda done: worker.log("score", done, len(listed)))
    seconds = round((time.monotonic() - started) / len(listed), 4)
    try:
        scale = noise_scale(scores, spec.noise)
    except ValueError as error:
        raise UserError(where_of(worker, "labeller"), str(error), "set 'noise: 0', or mend the function") from None
    seed, name = worker.file.seed, spec.path.rpartition(":")[2]
    raters = [name] if spec.num_raters == 1 else [f"{name} {number}" for number in range(1, spec.num_raters + 1)]
    found = [list(ranked(listed, scores, scale=scale, rater=rater, seed=seed, seconds=seconds)) for rater in raters]
    share = right_share(listed * len(raters), scores * len(raters), [one for own in found for one in own])
    metrics = {"noise_scale": scale} | ({} if share is None else {"right_pairs": share})
    return [decision for own in found for decision in own], metrics


def scores_of(
    spec: LabellerSpec, items: Sequence[Item], columns: Sequence[Columns], on_progress: Callable[[int], None]
) -> list[Scores]:
    """The function's scores of every item's completions.

    Raises:
        UserError: the function fails, or does not score a completion.
    """
    labeller, found = labelled_by(spec), list[Scores]()
    for start in range(0, len(items), SLICE):
        part = list(zip(items[start : start + SLICE], columns[start : start + SLICE], strict=True))
        flat = [(item, own, said) for item, own in part for said in item.answers.values()]
        prompts, texts = [item.prompt for item, _, _ in flat], [said for _, _, said in flat]
        places = [f"prompt {item.id}" for item, _, _ in flat]
        each = iter(labeller(prompts, texts, [own for _, own, _ in flat], places).tolist())
        found += [[next(each) for _ in item.texts] for item, _ in part]
        on_progress(len(found))
    return found


def by_file(worker: Worker, source: Path, items: Mapping[str, Item]) -> tuple[list[Decision], dict[str, float]]:
    path = rank_stage(worker).path
    assert path is not None
    return _decided(worker, Path(path).expanduser(), items, f"rank them: `llmkit rank {source} --out {path}`")


def by_people(worker: Worker, source: Path, items: Mapping[str, Item]) -> tuple[list[Decision], dict[str, float]]:
    """Rankings of the page. Raises UserError while they are too few: `llmkit run` goes on from here later."""
    folder = RunDir(worker.dir.path.parent).rankings(worker.file.stage.name)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / ROLLOUTS)
    cure = f"rank on the page: `llmkit rank {worker.dir.path.parent}`; then start the run again"
    if not (folder / RANKINGS).is_file():
        raise UserError(where_of(worker, "by: human"), f"none of {len(items)} prompts is ranked yet", cure)
    return _decided(worker, folder / RANKINGS, items, cure)


def _decided(
    worker: Worker, path: Path, items: Mapping[str, Item], cure: str
) -> tuple[list[Decision], dict[str, float]]:
    """What counts of a file. Raises UserError where too few prompts are ranked."""
    found, stage = standing_in(path, items), rank_stage(worker)
    decisions = list(found.decisions.values())
    num_decided = len({decision.item for decision in decisions})
    # divided: the product of 0.07 and 100 is more than 7
    if num_decided / len(items) < stage.min_ranked:
        what = f"{num_decided} of {len(items)} prompts are ranked, and {stage.min_ranked:.0%} are wanted"
        if found.stale:
            what += f"; {found.told_stale()}"
        raise UserError(where_of(worker, f"by: {stage.by}"), what, f"{cure}, or set a lower 'min_ranked'")
    if found.stale:
        worker.warn(f"{found.told_stale()}; they do not count")
    seconds = [decision.seconds for decision in decisions]
    return decisions, {"seconds_per_prompt": sum(seconds) / len(seconds)} if decisions else {}


_RANKERS = {"labeller": by_labeller, "file": by_file, "human": by_people, "judge": by_judge}


def keep(
    worker: Worker, items: Mapping[str, Item], decisions: Sequence[Decision], metrics: Mapping[str, float]
) -> Manifest:
    """Writes the rows, and says what they are. Raises RunError where they order nothing."""
    pairs, folder = pairs_of(decisions, items), worker.dir.data
    warn_of_contradictions(worker, decisions)
    rows = rows_of(decisions, items, pairs)
    if not rows:
        what = f"{len(decisions)} decisions order no two answers"
        raise RunError(where_of(worker, "rows"), what, "rank some prompts, or look at data/rankings.jsonl")
    for name, lines in (
        ("rankings", [d.model_dump(mode="json") for d in decisions]),
        ("train", rows),
        ("pairs", pairs.rows),
    ):
        with writing(folder / f"{name}.jsonl") as write:
            for line in lines:
                write(line)
    counts = {"prompts": len(rows), "decisions": len(decisions), "pairs": len(pairs.rows), "tied_pairs": pairs.num_tied}
    counts |= {"skipped": pairs.num_skipped, "flagged": pairs.num_flagged, "raters": len(pairs.raters)}
    best = [row["answers"][min(range(len(row["answers"])), key=lambda i: row["rankings"][0][i])] for row in rows[:3]]
    return worker.manifest(
        data_dir=folder.name,
        metrics={name: float(count) for name, count in counts.items()} | agreements(decisions) | dict(metrics),
        data=DataSummary(num_rows=len(rows)),
        samples=[
            Sample(prompt=last_text(row["prompt"]), completion=last_text(answer), label="ranked first")
            for row, answer in zip(rows, best, strict=False)
        ],
    )


def rows_of(decisions: Sequence[Decision], items: Mapping[str, Item], pairs: Pairs) -> list[dict[str, Any]]:
    """One row for each prompt of which two answers are in order, with every rater's ranks in one order of answers."""
    rankings: dict[str, list[dict[str, int]]] = {}
    for decision in decisions:
        if decision.item in pairs.items and decision.groups and not decision.repeat:
            rankings.setdefault(decision.item, []).append(decision.ranks)
    found = []
    for id, ranks in rankings.items():
        item = items[id]
        rankings_of = [[own[i] for i in item.texts] for own in ranks]
        answers = list(item.answers.values())
        found.append({"prompt": item.prompt, "answers": answers, "rankings": rankings_of, **item.schemas})
    return found


def agreements(decisions: Sequence[Decision]) -> dict[str, float]:
    """Kendall's tau of raters with one another, and with themselves where they saw prompts twice, means over raters.
    And what a perfect model can reach by either, with its 95 % interval over prompts."""
    raters = sorted({decision.rater for decision in decisions})
    others = [between(decisions, first, second) for first, second in combinations(raters, 2)]
    selves = [with_oneself(decisions, rater) for rater in raters]
    found: dict[str, float] = {}
    for name, group in (("tau_between_raters", others), ("tau_with_oneself", selves)):
        taus = [one.tau for one in group if one.tau is not None]
        found |= {name: sum(taus) / len(taus)} if taus else {}
    for name, most in ceilings(decisions).items():
        found |= {f"ceiling_{name}": most.share, f"ceiling_{name}_low": most.low, f"ceiling_{name}_high": most.high}
    return found


def warn_of_contradictions(worker: Worker, decisions: Sequence[Decision]) -> None:
    """Where raters contradict each other a reward model learns what is left when their votes cancel out."""
    found = contradicting(decisions)
    if found:
        told = ", ".join(f"'{one.rater}' (tau {one.tau:.2f} over {one.num_items} rankings)" for one in found)
        worker.warn(f"these raters contradict the others: {told}; ask them what they look for, or leave one side out")


if __name__ == "__main__":
    main("rank", run)
