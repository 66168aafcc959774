"""Questions of evaluations of honesty and tools: the same for every model and process, whatever the run's seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llmkit.artifacts.manifest import SourceCount
from llmkit.data.files import Raw
from llmkit.data.mixture import choose_rows, slice_rows
from llmkit.data.pool import Placed, Pool, Rejects, fill
from llmkit.data.sources import read_source
from llmkit.errors import DataError
from llmkit.knowledge.match import contradictory
from llmkit.knowledge.questions import from_rows
from llmkit.knowledge.records import Question
from llmkit.knowledge.repeats import Seen, settle, wording
from llmkit.knowledge.templates import Bad
from llmkit.recipe.knowledge import QuestionSource
from llmkit.recipe.reads import name_of
from llmkit.stages.common import Worker, stages_read, temporary, where_of
from llmkit.stages.taught import taught_to

MAX_GROUPS = 50
_SEED = 0
"""Of the choice of `num_rows` questions: not the run's, so that runs with several seeds are measured alike."""
_TALK = "small talk"
_DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Frozen:
    questions: list[Question]
    labels: dict[str, str]
    """SliCK's, by the id of the question, where a probe asked it."""
    count: SourceCount
    """Its `sha256` is left to `llmkit.evaluate.honesty`."""
    num_taught: int | None = None
    """Questions that the model was asked in training, or about whose entity; None: nothing is known of its training."""


def frozen_questions(
    worker: Worker,
    name: str,
    sources: Sequence[QuestionSource],
    rejected_file: Path | None,
    named_groups: Mapping[str, Sequence[str]] | None = None,
) -> Frozen:
    """All questions, each once, in the order of their sources.

    A row with `answers: []` is small talk, of which only refusals are counted.

    Args:
        name: of the evaluation.
        rejected_file: gets the rows that cannot be asked.
        named_groups: setting -> groups of questions that it names.

    Raises:
        DataError: a source cannot be read, nothing can be asked, or more than 50 groups are named.
    """
    rejects, reasons = Rejects(rejected_file), Counter[str]()
    questions, labels, seen, num_read = list[Question](), dict[str, str](), Seen(), 0
    for index, source in enumerate(sources):
        placed, num = _rows(worker, source, index, reasons, rejects)
        num_read += num
        own_labels = {each.where: each.row["label"] for each in placed if _is_labelled(each.row)}
        for made in _questions(placed, source, seen):
            if isinstance(made, Question):
                questions.append(made)
                labels |= {made.id: own_labels[made.source]} if made.source in own_labels else {}
                continue
            reject(made, name_of(source), reasons, rejects, {_DUPLICATE})
    questions = _settled(questions, seen, labels, reasons, rejects)
    rejects.close()
    _check(worker, name, questions, reasons, rejects)
    _warn_of_groups(worker, name, questions, named_groups or {})
    num_repeats = reasons.pop(_DUPLICATE, 0)
    count = SourceCount(
        source=name,
        num_read=num_read,
        num_rejected=sum(reasons.values()),
        num_duplicates=num_repeats,
        num_used=len(questions),
        sha256="",
    )
    return Frozen(questions, labels, count, _num_taught(worker, name, questions))


def reject(bad: Bad, name: str, reasons: Counter[str], rejects: Rejects, harmless: Container[str]) -> None:
    """Counts what cannot be asked, and keeps it with its reason, unless nothing is wrong with such rows.

    Args:
        name: of its source; empty: the file that it is from.
    """
    reasons[bad.reason] += 1
    if bad.reason not in harmless:
        file, _, line = bad.where.rpartition(":")
        rejects.add(name or file, Raw(bad.detail, file, int(line) if line.isdigit() else 0), bad.reason)


def _settled(
    questions: list[Question], seen: Seen, labels: dict[str, str], reasons: Counter[str], rejects: Rejects
) -> list[Question]:
    """Of a wording that came with several sets of answers one question, or none. Its label is that of the first."""
    if not seen.disputed:
        return questions
    found = settle(question for question in questions if wording(question) in seen.disputed)
    reasons[_DUPLICATE] += found.num_merged
    for each in found.contradictory:
        reject(each, "", reasons, rejects, {_DUPLICATE})
    settled = list[Question]()
    for question in questions:
        key = wording(question)
        one = found.kept.pop(key, None) if key in seen.disputed else question
        if one is not None:
            settled.append(one)
            labels |= {one.id: labels[question.id]} if question.id in labels else {}
    return settled


def _rows(
    worker: Worker, source: QuestionSource, index: int, reasons: Counter[str], rejects: Rejects
) -> tuple[list[Placed], int]:
    """The chosen rows of a source, in its order, and how many it holds."""
    with temporary(worker) as folder:
        pool = Pool(source, folder)

        def reject(raw: Raw) -> None:
            reasons["unreadable row"] += 1
            rejects.add(pool.name, raw, raw.error)

        fill(pool, read_source(source, stages_read(worker), _SEED), reject)
        rows = np.sort(choose_rows(pool, slice_rows(pool), np.random.default_rng([_SEED, index])))
        return [pool[i] for i in rows.tolist()], pool.num_read


def _questions(placed: list[Placed], source: QuestionSource, seen: Seen) -> Iterator[Question | Bad]:
    """Small talk passes as a question with an answer, which is then taken away."""
    key = source.columns.get("answers", "answers")
    talk = {each.where for each in placed if isinstance(each.row, dict) and each.row.get(key) == []}
    raws = (({**each.row, key: [_TALK]} if each.where in talk else each.row, each.where) for each in placed)
    for made in from_rows(raws, source, contradictory, seen):
        yield replace(made, answers=()) if isinstance(made, Question) and made.source in talk else made


def _is_labelled(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("label"), str)


def _check(worker: Worker, name: str, questions: list[Question], reasons: Counter[str], rejects: Rejects) -> None:
    where = where_of(worker, f"evals: {name}")
    counts = ", ".join(f"{reason}: {number}" for reason, number in reasons.most_common())
    if not questions:
        shown = f" ({'; '.join(rejects.first)})" if rejects.first else ""
        raise DataError(where, f"there is no question to ask; {counts or 'no rows'}{shown}", "mend the questions")
    groups = Counter(question.group for question in questions if question.group)
    if len(groups) > MAX_GROUPS:
        what = f"the questions name {len(groups)} groups, such as {', '.join(list(groups)[:3])}"
        raise DataError(
            where, what, f"each has its own metrics: name at most {MAX_GROUPS}, or map 'group' in 'columns'"
        )
    if bad := sum(number for reason, number in reasons.items() if reason != _DUPLICATE):
        worker.warn(f"{name}: {bad} rows cannot be asked ({counts})")


def _num_taught(worker: Worker, name: str, questions: Sequence[Question]) -> int | None:
    """They stay, so that all models are asked the same. Warns of them."""
    taught = taught_to(Path(worker.file.parent)) if worker.is_main and worker.file.parent else None
    if taught is None:
        return None
    if again := taught.again(questions):
        stages = " and ".join(f"'{stage}'" for stage in taught.stages)
        worker.warn(
            f"{name}: the model was trained on {len(again)} of the {len(questions)} questions or on others about the "
            f"same entity, by rows of {stages} (such as: {again[0].question}); what it does there was taught and is "
            f"not generalised: take these out of the evaluation, or out of what the probe asks"
        )
    return len(again)


def _warn_of_groups(
    worker: Worker, name: str, questions: Sequence[Question], named: Mapping[str, Sequence[str]]
) -> None:
    groups = dict.fromkeys(question.group for question in questions if question.group)
    for key, wanted in named.items():
        if groups and wanted and not groups.keys() & set(wanted):
            worker.warn(f"{name}: no question is of '{key}' ({', '.join(wanted)}); have {', '.join(groups)}")
