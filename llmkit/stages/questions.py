"""What an interrogation asks: the recipe's question sources, and the questions written about documents.

data/steps/questions.jsonl   {"question", "answers", "entity", "group", "document", "source", "language"}, and for
                             a question of an earlier probe its "split" and "label" there
data/steps/counts.jsonl      one row: how many were left out, by reason
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from llmkit.data.files import Raw
from llmkit.data.mixture import choose_rows, slice_rows
from llmkit.data.pool import Pool, Rejects, fill
from llmkit.data.sources import read_source
from llmkit.errors import DataError
from llmkit.knowledge.match import contradictory
from llmkit.knowledge.probe import is_probe, read_probe
from llmkit.knowledge.questions import from_rows, sift
from llmkit.knowledge.records import Question, question_of
from llmkit.knowledge.repeats import Seen, settle, wording
from llmkit.knowledge.store import Row, Steps, read_rows, writing
from llmkit.knowledge.summary import HARMLESS, Counts
from llmkit.knowledge.templates import Bad
from llmkit.recipe.knowledge import QuestionSource
from llmkit.recipe.reads import name_of
from llmkit.stages.asked import COUNTS, DOCUMENTS, QUESTIONS, WRITTEN, interrogation
from llmkit.stages.common import Worker, stages_read, temporary, where_of
from llmkit.stages.frozen import MAX_GROUPS, reject

REASKED = ("question", "answers", "entity", "group", "document", "source", "language", "split", "label")


def gather(worker: Worker, steps: Steps, num_written: int) -> None:
    """Question sources and written questions -> questions.jsonl, each wording once.

    Args:
        num_written: chunks of written questions.

    Raises:
        DataError: a source cannot be read, nothing is left to ask, or more than 50 groups are named.
    """
    stage = interrogation(worker)
    counts = Counts.read(steps.whole(DOCUMENTS)) if stage.documents else Counts()
    rejects, seen, groups, total = Rejects(worker.dir.rejected), Seen(), set[str](), 0
    # of a question that stands in several sources the earlier probe's split must win, so probes come first
    sources = sorted(enumerate(stage.questions), key=lambda pair: not _is_reasked(worker, pair[1]))
    with temporary(worker) as folder, writing(steps.whole(QUESTIONS)) as write:
        with writing(draft := folder / "questions.jsonl") as write_draft:
            for index, source in sources:
                for row in _asked_by(worker, source, index, seen, counts, rejects):
                    write_draft(row)
                    total += 1
                    groups |= {row["group"]} if row["group"] else set()
                    if len(groups) > MAX_GROUPS:
                        raise _too_many_groups(worker, source, groups)
                    if total % 10_000 == 0:
                        worker.log("questions", total, total)
            for row in _written(steps, num_written, seen, counts):
                write_draft(row)
        total = 0
        for row in _settled(draft, seen, counts, rejects):
            write(row)
            total += 1
        rejects.close()
        if not total:
            where = ", ".join(name_of(source) for source in (*stage.questions, *stage.documents))
            shown = f": {'; '.join(rejects.first)}" if rejects.first else ""
            what = f"there is no question to ask ({counts.words()}){shown}"
            raise DataError(where, what, "mend the rows, or name their columns with 'columns'")
    counts.write(steps.whole(COUNTS))
    worker.log("questions", total, total)


def _too_many_groups(worker: Worker, source: QuestionSource, groups: set[str]) -> DataError:
    """As an evaluation of these questions would say later."""
    named = ", ".join(sorted(groups)[:3])
    what = f"the questions name more than {MAX_GROUPS} groups, such as {named}"
    cure = f"each has its own counts: name at most {MAX_GROUPS}, or map 'group' in 'columns'"
    return DataError(f"{where_of(worker, 'questions')}: {name_of(source)}", what, cure)


def _asked_by(
    worker: Worker, source: QuestionSource, index: int, seen: Seen, counts: Counts, rejects: Rejects
) -> Iterator[Row]:
    """Rows of one source: sliced, shuffled and limited as in a mixture; an earlier probe keeps its order, so that the
    same few-shot examples are drawn."""
    reasked = _is_reasked(worker, source)
    with temporary(worker) as folder:
        pool = _pool(worker, source, folder, reasked, counts, rejects)
        order = choose_rows(pool, slice_rows(pool), np.random.default_rng([worker.file.seed, index]))
        if reasked:
            yield from _again((pool[i].row for i in sorted(order.tolist())), seen, counts)
            return
        placed = (pool[i] for i in order.tolist())
        found = from_rows(((each.row, each.where) for each in placed), source, contradictory, seen)
        held = {"split": "heldout"} if source.from_ and source.name == "heldout" else {}
        for each in _good(found, pool.name, counts, rejects):
            yield _row(each) | held


def _is_reasked(worker: Worker, source: QuestionSource) -> bool:
    """Whether a source is an earlier probe as a whole."""
    folder = worker.file.data_stages.get(source.from_ or "")
    return folder is not None and source.name in (None, "probe") and is_probe(Path(folder))


def _pool(
    worker: Worker, source: QuestionSource, folder: Path, reasked: bool, counts: Counts, rejects: Rejects
) -> Pool:
    """The readable rows of a source, on disk."""
    pool, stages = Pool(source, folder), stages_read(worker)
    raws = _probed(stages[str(source.from_)]) if reasked else read_source(source, stages, worker.file.seed)

    def reject(raw: Raw) -> None:
        counts.questions["unreadable row"] += 1
        rejects.add(pool.name, raw, raw.error)

    fill(pool, raws, reject)
    return pool


def _probed(stage_dir: Path) -> Iterator[Raw]:
    _, rows = read_probe(stage_dir)
    for number, row in enumerate(rows, start=1):
        yield Raw({key: getattr(row, key) for key in REASKED}, str(stage_dir), number)


def _again(rows: Iterator[Row], seen: Seen, counts: Counts) -> Iterator[Row]:
    """Questions of an earlier probe, exactly as they were asked there."""
    for row in rows:
        if seen.again(question_of(row)):
            counts.questions["duplicate"] += 1
        else:
            yield row


def _written(steps: Steps, num_chunks: int, seen: Seen, counts: Counts) -> Iterator[Row]:
    """What the writer wrote, without what it wrote twice."""
    for row in steps.rows(WRITTEN, num_chunks):
        counts.written.update(row["dropped"])
        for each in sift((question_of(made) for made in row["questions"]), contradictory, seen):
            if isinstance(each, Bad):
                counts.written[each.reason] += 1
            else:
                yield _row(each)


def _settled(path: Path, seen: Seen, counts: Counts, rejects: Rejects) -> Iterator[Row]:
    """All rows; of a wording that came with several sets of answers one, or none. What an earlier probe asked stays as
    it was asked. Memory: the questions of such wordings."""
    asked_before, disputed = set[int](), list[Question]()
    for row in read_rows(path) if seen.disputed else ():
        if (key := wording(question_of(row))) in seen.disputed:
            asked_before |= {key} if "label" in row else set()
            disputed.append(question_of(row))
    found = settle(question for question in disputed if wording(question) not in asked_before)
    counts.questions["duplicate"] += found.num_merged
    for each in found.contradictory:
        reject(each, "", counts.questions, rejects, HARMLESS)
    for row in read_rows(path):
        key = wording(question_of(row))
        if key not in seen.disputed or "label" in row:
            yield row
        elif (kept := found.kept.pop(key, None)) is not None:
            yield row | _row(kept)
        elif key in asked_before:
            counts.questions["duplicate"] += 1


def _good(found: Iterator[Question | Bad], name: str, counts: Counts, rejects: Rejects) -> Iterator[Question]:
    for each in found:
        if isinstance(each, Question):
            yield each
            continue
        reject(each, name, counts.questions, rejects, HARMLESS)


def _row(question: Question) -> Row:
    return asdict(question)
