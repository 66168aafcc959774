"""Documents -> snippets -> questions about them.

data/steps/snippets.jsonl        {"text", "source"}
data/steps/written-00012.jsonl   per snippet {"questions": [...], "dropped": {reason: number}, "error"}
data/steps/documents.jsonl       one row: how many were left out, by reason
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from accelerate import PartialState

from llmkit.data.mixture import mix
from llmkit.errors import DataError, UserError
from llmkit.knowledge.judging import OUTAGE, SLICE
from llmkit.knowledge.snippets import Snippet, reservoir, snippets
from llmkit.knowledge.store import Chunks, Row, Steps, writing
from llmkit.knowledge.summary import Counts
from llmkit.knowledge.writer import PROMPT, ModelWriter, TemplateWriter, Writer
from llmkit.recipe.reads import name_of
from llmkit.stages.asked import DOCUMENTS, SNIPPETS, WRITTEN, Pace, interrogation
from llmkit.stages.common import Worker, stages_read, temporary, where_of
from llmkit.stages.engines import AskedModel, engine_of


def cut(worker: Worker, steps: Steps) -> None:
    """Documents -> snippets.jsonl. Documents lie on disk meanwhile, and snippets are drawn by their number.

    Raises:
        DataError: a source cannot be read, or no document holds a fact.
    """
    stage, counts = interrogation(worker), Counts()
    with temporary(worker) as folder:
        mixture = mix(
            list(stage.documents),
            seed=worker.file.seed,
            folder=folder,
            data_stages=stages_read(worker),
            accept=("text",),
            stage_kind="interrogate",
            max_rejected=1.0,
            rejected_file=steps.folder / "rejected_documents.jsonl",
        )
        for count in mixture.counts:
            counts.documents.update({"read": count.num_read, "rejected": count.num_rejected})
        total = 0
        for number, placed in enumerate(mixture, start=1):
            found = len(snippets(placed.row["text"], stage.snippet_chars, counts.snippets))
            counts.documents["without facts"] += not found
            total += found
            if number % 1000 == 0 or number == len(mixture):
                worker.log("questions", number, len(mixture))
        if not total:
            where = ", ".join(name_of(source) for source in stage.documents)
            what = f"no document holds a snippet with facts ({counts.words()})"
            raise DataError(where, what, "give running text, or ask with 'questions'")
        pieces = (
            {"text": text, "source": placed.where}
            for placed in mixture
            for text in snippets(placed.row["text"], stage.snippet_chars)
        )
        drawn = reservoir(range(total), stage.num_snippets, worker.file.seed) if stage.num_snippets else range(total)
        wanted = iter(drawn)
        with writing(steps.whole(SNIPPETS)) as write:
            following = next(wanted)
            for number, row in enumerate(pieces):
                if number == following:
                    write(row)
                    following = next(wanted, -1)
    counts.write(steps.whole(DOCUMENTS))


def warn_of_few(worker: Worker, num_snippets: int) -> None:
    """Also when the stage goes on later: the documents were cut then."""
    wanted = interrogation(worker).num_snippets or 0
    if num_snippets < wanted:
        worker.warn(f"the documents hold {num_snippets} snippets with facts; 'num_snippets' asks for {wanted}")


def write_about(worker: Worker, steps: Steps, state: PartialState, snippets: Chunks, asked: AskedModel) -> None:
    """Questions about the snippets of this process's chunks. Of a chunk that is there, only the snippets on which the
    writer failed are tried again.

    Raises:
        UserError: the writer seems to be out of order. What it has written is kept.
    """
    own = range(state.process_index, len(snippets), state.num_processes)
    todo = {index: places for index in own if (places := _to_write(steps, index, snippets.rows_in(index)))}
    if not todo:
        return
    writer = open_writer(worker, asked)
    pace = Pace(worker, "write", sum(map(len, todo.values())), state.num_processes, unit="snippets")
    allowed = max(OUTAGE, interrogation(worker).writer.max_failed)
    for index, places in todo.items():
        rows = _write_chunk(steps, index, snippets[index], places, writer, pace)
        failures = Counter(rows[place]["error"] for place in places if rows[place]["error"])
        # a few snippets say nothing of the writer: `check_written` counts them with the others
        if len(places) >= SLICE and failures.total() > allowed * len(places):
            raise too_many_failed(worker, failures, len(places))


def _to_write(steps: Steps, index: int, num_rows: int) -> list[int]:
    """Places in a chunk of the snippets about which nothing is written, for want of time or of an answer."""
    if not steps.path(WRITTEN, index).is_file():
        return list(range(num_rows))
    return [place for place, row in enumerate(steps.read(WRITTEN, index)) if row["error"]]


def _write_chunk(steps: Steps, index: int, cut_: list[Row], places: list[int], writer: Writer, pace: Pace) -> list[Row]:
    rows = steps.read(WRITTEN, index) if len(places) < len(cut_) else [Row()] * len(cut_)
    pieces = [Snippet(cut_[place]["text"], cut_[place]["source"]) for place in places]
    for place, written in zip(places, writer.write(pieces), strict=True):
        made = [asdict(question) for question in written.questions]
        rows[place] = {"questions": made, "dropped": dict(written.dropped), "error": written.error}
        pace.add(1)
    steps.write(WRITTEN, index, rows)
    return rows


def check_written(worker: Worker, steps: Steps, num_chunks: int) -> None:
    """Raises UserError where the writer failed on more snippets than the recipe allows."""
    errors = [row["error"] for row in steps.rows(WRITTEN, num_chunks)]
    failures = Counter(error for error in errors if error)
    if errors and failures.total() / len(errors) > interrogation(worker).writer.max_failed:
        raise too_many_failed(worker, failures, len(errors))


def too_many_failed(worker: Worker, failures: Counter[str], total: int) -> UserError:
    number, allowed = failures.total(), interrogation(worker).writer.max_failed
    what = (
        f"the writer failed on {number} of {total} snippets ({number / total:.1%}, allowed {allowed:.1%}); most often: "
        f"{failures.most_common(1)[0][0]}"
    )
    cure = "mend it, take another or a smaller 'snippet_chars', and run again: what is written is kept"
    return UserError(where_of(worker, "writer"), what, f"{cure}; or raise 'writer.max_failed'")


def open_writer(worker: Worker, asked: AskedModel) -> Writer:
    stage, spec = interrogation(worker), interrogation(worker).writer
    if spec.by == "templates":
        return TemplateWriter(spec.templates)
    prompt = PROMPT.load(spec.prompt)
    engine, chat = engine_of(spec, spec.by, asked, stage.batch_size)
    assert engine is not None
    return ModelWriter(engine, prompt, spec.num_questions, worker.file.seed, spec.max_new_tokens, chat=chat)
