"""Rankings of a model, kept chunk by chunk: what it failed to put in order is asked again at the next start.

data/steps/judged-00012.jsonl    {"item", "decision"}: null where there is no readable order yet
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from llmkit.artifacts.files import sha256_of
from llmkit.artifacts.stagefile import StageFile
from llmkit.errors import UserError
from llmkit.knowledge.judging import OUTAGE, SLICE
from llmkit.knowledge.store import Row, Steps
from llmkit.preference.rankings import Decision
from llmkit.preference.rollouts import Item
from llmkit.recipe.preference import RankJudgeSpec
from llmkit.recipe.stages_preference import RankStage
from llmkit.stages.asked import Pace, chunks_of, processes, said_by
from llmkit.stages.common import Worker, where_of
from llmkit.stages.engines import AskedModel, check_engine, engine_of
from llmkit.stages.rank_judge import PROMPT, RankJudge, told_cut

CHUNK, JUDGED = 64, "judged"
"""Prompts that a judge puts in order between two files, and the name of these among the stage's steps."""


def by_judge(worker: Worker, source: Path, items: Mapping[str, Item]) -> tuple[list[Decision], dict[str, float]]:
    """Raises UserError where the judge leaves too many prompts without an order; those that have one are kept."""
    stage, state = worker.file.stage, processes(worker)
    assert isinstance(stage, RankStage) and stage.judge is not None
    spec = stage.judge
    asked = AskedModel(worker, spec.engine, stage.batch_size)
    PROMPT.load(spec.prompt)
    check_engine(spec, spec.by)
    listed, steps = list(items.values()), Steps(worker.dir.data / "steps")
    if cut := told_cut(listed):
        worker.warn(f"judge: {cut}")
    if worker.is_main:
        steps.begin({JUDGED: judged_key(worker.file, spec)})
    state.wait_for_everyone()
    chunks = chunks_of(len(listed), CHUNK)
    own = {index: chunks[index] for index in range(state.process_index, len(chunks), state.num_processes)}
    # the engine is opened with the first chunk: rankings that are all there need none
    judge = cache(partial(_opened, worker, spec, asked))
    failures = judge_chunks(worker, steps, own, listed, judge, spec, state.num_processes)
    state.wait_for_everyone()
    for reason, count in failures.most_common(3):
        worker.warn(f"judge: {count} replies: {reason}")
    if not worker.is_main:
        return [], {}
    rows = steps.rows(JUDGED, len(chunks))
    decisions = [Decision.model_validate(row["decision"]) for row in rows if row["decision"]]
    num_left = len(items) - len(decisions)
    if num_left / len(items) > spec.max_undecided:
        raise _too_many(worker, num_left, len(items), failures)
    return decisions, {"undecided": float(num_left)}


def judged_key(file: StageFile, spec: RankJudgeSpec) -> str:
    """What the rankings depend on: not on how many may be missing, nor on how long the judge may take."""
    # without named parts (a stage file written by hand) all depends on all
    parts = file.inputs or {"fingerprint": file.fingerprint}
    return sha256_of([{name: part for name, part in parts.items() if name != "judge"}, said_by(spec), CHUNK])


def judge_chunks(
    worker: Worker,
    steps: Steps,
    own: Mapping[int, Sequence[int]],
    items: Sequence[Item],
    judge: Callable[[], RankJudge],
    spec: RankJudgeSpec,
    num_processes: int,
) -> Counter[str]:
    """Has the judge put in order what is open in these chunks. Returns why prompts were left without an order.

    Raises:
        UserError: the judge seems to be out of order. What it has decided is kept.
    """
    pace = Pace(worker, "judge", sum(map(len, own.values())), num_processes, "prompts")
    num_asked = num_failed = 0
    failures = Counter[str]()
    for index, numbers in own.items():
        found = _known(steps, index)
        left = [number for number in numbers if items[number].id not in found]
        if left or not steps.path(JUDGED, index).is_file():
            made = judge().rank([items[number] for number in left])
            found |= {one.item: one for one in made}
            steps.write(JUDGED, index, [_row(items[number], found) for number in numbers])
            failures = judge().failures
            num_asked, num_failed = num_asked + len(left), num_failed + len(left) - len(made)
        # an endpoint that died is noticed within a slice of what it was asked
        if num_asked >= SLICE:
            if num_failed / num_asked > max(OUTAGE, spec.max_undecided):
                raise _too_many(worker, num_failed, num_asked, failures)
            num_asked = num_failed = 0
        pace.add(len(numbers))
    return failures


def _known(steps: Steps, index: int) -> dict[str, Decision]:
    """Rankings of an earlier start, by item."""
    if not steps.path(JUDGED, index).is_file():
        return {}
    rows = (row["decision"] for row in steps.read(JUDGED, index))
    return {one.item: one for one in (Decision.model_validate(row) for row in rows if row)}


def _row(item: Item, found: Mapping[str, Decision]) -> Row:
    made = found.get(item.id)
    return {"item": item.id, "decision": made.model_dump(mode="json") if made else None}


def _too_many(worker: Worker, number: int, total: int, failures: Counter[str]) -> UserError:
    what = f"{number} of {total} prompts have no readable order"
    what += f"; most often: {failures.most_common(1)[0][0]}" if failures else ""
    cure = "mend or change the judge and run again: all orders that it gave are kept; or raise 'judge.max_undecided'"
    return UserError(where_of(worker, "judge"), what, cure)


def _opened(worker: Worker, spec: RankJudgeSpec, asked: AskedModel) -> RankJudge:
    stage = worker.file.stage
    assert isinstance(stage, RankStage)
    engine, chat = engine_of(spec, spec.by, asked, stage.batch_size)
    assert engine is not None
    return RankJudge(engine, spec, spec.name_or_path or stage.from_, worker.file.seed, chat=chat)
