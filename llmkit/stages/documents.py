"""Documents -> snippets -> questions about them.

data/steps/snippets.jsonl        {"text", "source"}
data/steps/written-00012.jsonl   per snippet {"questions": [...], "dropped": {reason: number}, "error"}
data/steps/documents.jsonl       one row: how many were left out, by reason
"""

from __future__ import annotations

from dataclasses import asdict

from accelerate import PartialState

from llmkit.data.mixture import mix
from llmkit.data.sources import name_of
from llmkit.errors import DataError, UserError
from llmkit.knowledge.snippets import Snippet, reservoir, snippets
from llmkit.knowledge.store import Chunks, Row, Steps, writing
from llmkit.knowledge.summary import Counts
from llmkit.knowledge.writer import PROMPT, ModelWriter, TemplateWriter, Writer
from llmkit.stages.asked import (
    DOCUMENTS,
    OUTAGE,
    SNIPPETS,
    WRITTEN,
    Pace,
    interrogation,
    seed_of,
    stages_read,
    temporary,
    where_of,
)
from llmkit.stages.common import Worker
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
            seed=seed_of(worker),
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
        drawn = reservoir(range(total), stage.num_snippets, seed_of(worker)) if stage.num_snippets else range(total)
        wanted = iter(drawn)
        with writing(steps.whole(SNIPPETS)) as write:
            following = next(wanted)
            for number, row in enumerate(pieces):
                if number == following:
                    write(row)
                    following = next(wanted, -1)
    counts.write(steps.whole(DOCUMENTS))


def write_about(worker: Worker, steps: Steps, state: PartialState, snippets: Chunks, asked: AskedModel) -> None:
    """Chunks of questions about snippets; one with failures is written again."""
    own = range(state.process_index, len(snippets), state.num_processes)
    missing = [
        i for i in own if not steps.path(WRITTEN, i).is_file() or any(r["error"] for r in steps.read(WRITTEN, i))
    ]
    if not missing:
        return
    writer = open_writer(worker, asked)
    pace = Pace(worker, "write", sum(map(snippets.rows_in, missing)), state.num_processes, unit="snippets")
    for index in missing:
        pieces = [Snippet(row["text"], row["source"]) for row in snippets[index]]
        rows: list[Row] = []
        for written in writer.write(pieces):
            made = [asdict(question) for question in written.questions]
            rows.append({"questions": made, "dropped": dict(written.dropped), "error": written.error})
            pace.add(1)
        steps.write(WRITTEN, index, rows)
        failures = [row["error"] for row in rows if row["error"]]
        if len(failures) > OUTAGE * len(rows):
            what = f"the writer failed on {len(failures)} of {len(rows)} snippets ({failures[0]})"
            cure = "mend it, take another or a smaller 'snippet_chars', and run again"
            raise UserError(where_of(worker, "writer"), what, cure)


def open_writer(worker: Worker, asked: AskedModel) -> Writer:
    stage, spec = interrogation(worker), interrogation(worker).writer
    if spec.by == "templates":
        return TemplateWriter(spec.templates)
    prompt = PROMPT.load(spec.prompt)
    engine, chat = engine_of(spec, spec.by, asked, stage.batch_size)
    assert engine is not None
    return ModelWriter(engine, prompt, spec.num_questions, seed_of(worker), spec.max_new_tokens, chat=chat)
