"""Rows that teach a model to answer what it knows and to refuse what it does not, from probes of that model.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.refusals recipe.yaml --stage refusals

Needs neither the model nor a GPU. `data/train.jsonl` is for `sft`; `pairs`, `pairs_all` and `tool_calls` stand beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

from llmkit.artifacts.manifest import Manifest, Sample
from llmkit.errors import DataError
from llmkit.intervals import wilson
from llmkit.knowledge.balance import Surface
from llmkit.knowledge.dataset import choose, fates, settle_conflicts
from llmkit.knowledge.lookups import Lookups, Plant
from llmkit.knowledge.probe import read_probe
from llmkit.knowledge.records import ProbeRow
from llmkit.knowledge.sides import BECAME_KNOWN, LOST, OVER_REFUSED, Survey, survey
from llmkit.knowledge.training_rows import Written, write
from llmkit.recipe.stages_knowledge import RefusalsStage
from llmkit.recipe.tools import LookupSpec, SearchSpec
from llmkit.stages.common import Worker, main, stages_read
from llmkit.stages.probed import check_probes
from llmkit.tools.injections import planted_in_some, shipped_injections
from llmkit.tools.search import found as found_passages
from llmkit.tools.search import index_of, open_index
from llmkit.tools.toolbox import open_tools

FEW_ENTITIES = 300
"""With 120 known entities a model of 2M parameters learned the list of them and refused 79 % of other known ones."""
LOPSIDED = 5
"""So many times the entities on the other side: the model learns the short list, and that whoever else is the other."""
GIVEN_AWAY = 0.6
"""`surface_accuracy` above which the wording gives the label away."""


def run(worker: Worker) -> Manifest:
    stage = refusals_stage(worker)
    if not worker.is_main:
        return worker.manifest()
    seed = worker.file.seed
    folders = probe_folders(worker, stage)
    check_probes(worker, [read_probe(folder)[0] for folder in folders], f"stage '{stage.name}': probes")
    probes = [partial(_rows, folder) for folder in folders]

    worker.log("read", 0, 3)
    found = survey(probes, stage)
    worker.log("compare", 1, 3)
    settle_conflicts(found, probes, stage.conflict_similarity)
    chosen = choose(found, stage, seed)
    worker.log("write", 2, 3)
    with lookups_of(worker, stage) as lookups:
        options: dict[str, Any] = {"seed": seed, "folder": worker.dir.data, "lookups": lookups}
        written = write(found, probes, chosen, stage, **options)
    worker.log("write", 3, 3)

    metrics = numbers(found, written)
    if lookups is not None:
        metrics |= {f"lookups_{name}": float(count) for name, count in lookups.counts.items()}
    for warning in warnings(stage, written, metrics):
        worker.warn(warning)
    return worker.manifest(
        data_dir=worker.dir.data.name,
        metrics=metrics,
        samples=[
            Sample(prompt=question, completion=answer, label="refused" if refused else "answered")
            for question, answer, refused in sorted(written.examples, key=lambda example: example.refused)
        ],
    )


@contextmanager
def lookups_of(worker: Worker, stage: RefusalsStage) -> Iterator[Lookups | None]:
    """The tools of `lookup`, open. Raises UserError where they cannot be opened."""
    if (spec := stage.lookup) is None:
        yield None
        return
    stages = stages_read(worker)
    (own,) = (index_of(tool, stages) for tool in spec.tools if isinstance(tool, SearchSpec))
    index = open_index(own)
    try:
        with open_tools(spec.tools, stages) as box:
            find = partial(found_passages, index, own)
            plant = planter(spec, f"stage '{stage.name}': lookup.injections")
            yield Lookups(spec, stage.refusals, box.schemas, own.tool_name, find, worker.file.seed, plant)
    finally:
        index.close()


def planter(spec: LookupSpec, where: str) -> Plant:
    """Raises DataError where llmkit's own evaluation plants one of the instructions, and would ask what was taught."""
    own = {each.text for each in shipped_injections()}
    if known := next((text for text in spec.injections if text in own), None):
        raise DataError(where, f"'{known}' is what 'injections: shipped' asks with", "teach with others")
    if not spec.injections:
        return lambda result, key: result
    return lambda result, key: planted_in_some(result, spec.injections, spec.injected, key)


def refusals_stage(worker: Worker) -> RefusalsStage:
    stage = worker.file.stage
    assert isinstance(stage, RefusalsStage), stage.kind
    return stage


def _rows(folder: Path) -> Iterator[ProbeRow]:
    return read_probe(folder)[1]


def probe_folders(worker: Worker, stage: RefusalsStage) -> list[Path]:
    have = worker.file.data_stages
    if missing := [name for name in stage.probes if name not in have]:
        what = f"no stage '{missing[0]}' has run"
        raise DataError(f"stage '{stage.name}': probes", what, f"have: {', '.join(have) or 'none'}")
    return [Path(have[name]) for name in stage.probes]


def numbers(found: Survey, written: Written) -> dict[str, float]:
    """All counts. `questions_<fate>` add up to `questions`; with `repeated` and `probed_again` that is `probe_rows`."""
    counts: dict[str, float] = {
        "probe_rows": found.seen.total(),
        **{key: found.seen[key] for key in ("questions", "repeated", "probed_again")},
        **{f"questions_{fate}": count for fate, count in fates(found).items()},
        "became_known": found.count(BECAME_KNOWN),
        "over_refused": found.count(OVER_REFUSED),
        "lost": found.count(LOST),
        "num_rows": written.rows.total(),
        **{f"rows_{side}": written.rows[side] for side in ("answered", "refused", "partial")},
        **{f"entities_{side}": count for side, count in written.num_entities.items()},
        "refusal_texts": len(written.refusals),
        **{f"pairs_{kind}": count for kind, count in written.pairs.items()},
    }
    if written.surface is not None:
        low, high = surface_interval(written.surface)
        counts |= {"surface_accuracy": written.surface.accuracy}
        counts |= {"surface_accuracy_low": low, "surface_accuracy_high": high}
    return counts


def surface_interval(surface: Surface) -> tuple[float, float]:
    """95 % interval of the mean of two independent shares, from their Wilson intervals (MOVER: Newcombe 1998)."""
    sides = ((surface.right_refused, surface.num_refused), (surface.right_answered, surface.num_answered))
    reach = [[abs(right / num - end) for end in wilson(right, num)] for right, num in sides]
    down, up = (sqrt(sum(side[end] ** 2 for side in reach)) / 2 for end in (0, 1))
    return max(0.0, surface.accuracy - down), min(1.0, surface.accuracy + up)


def warnings(stage: RefusalsStage, written: Written, metrics: dict[str, float]) -> Iterator[str]:
    """What makes a model learn something else than what it knows."""
    sides = {"refused": "unknown", "answered": "known"} if stage.known_ratio else {"refused": "unknown"}
    for side, name in sides.items():
        if (count := written.num_entities[side]) < FEW_ENTITIES:
            unnamed = written.without_entity[side]
            told = f" ({unnamed} of these questions without 'entity')" if unnamed else ""
            yield (
                f"the {name} side is about {count} entities only{told}: a model may learn their list instead of what "
                f"it knows; probe more of them (some hundreds at least)"
            )
    if len(written.refusals) == 1 and written.rows["refused"] > 1:
        yield "all refusals are of one wording: the model learns that sentence; give several 'refusals.texts'"
    if not stage.known_ratio:
        return
    few, many = sorted(sides, key=lambda side: written.num_entities[side])
    if written.num_entities[many] > LOPSIDED * written.num_entities[few]:
        yield (
            f"the {sides[many]} side is about {written.num_entities[many]} entities and the {sides[few]} side about "
            f"{written.num_entities[few]}: a model may learn the shorter list and take everything else for "
            f"{sides[many]}; probe more entities that are {sides[few]}, or fewer of the others"
        )
    accuracy = metrics.get("surface_accuracy")
    if accuracy is None:
        yield "there are too few rows to measure whether the wording gives the label away"
    elif accuracy > GIVEN_AWAY:
        yield (
            f"the wording of a question gives its label away: a classifier that sees no names is right on "
            f"{accuracy:.0%} of held-out questions (50% says nothing); ask about known and unknown things in the same "
            f"words, or set 'balance: true'"
        )


if __name__ == "__main__":
    main("refusals", run)
