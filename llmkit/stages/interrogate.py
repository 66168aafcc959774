"""Asks a model questions without their documents, and labels each by how well the model knows its answer.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.interrogate recipe.yaml --stage probe

Questions are written, asked and judged in chunks, which are shared out over the processes and lie in data/steps once
they are finished; a killed stage goes on with the first that is missing. The main process then counts and labels.
With several hosts the run's folder must be on a disk that they share.

    questions.jsonl          see `llmkit.stages.questions`
    answers-00012.jsonl      see `llmkit.knowledge.answering`
    verdicts-00012.jsonl     see `llmkit.knowledge.judging`
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from accelerate import PartialState

from llmkit.artifacts.manifest import Manifest
from llmkit.artifacts.stagefile import StageFile
from llmkit.knowledge.asking import Asking, fewshot_pool
from llmkit.knowledge.judging import too_many_undecided
from llmkit.knowledge.labels import probe_row
from llmkit.knowledge.probe import HELDOUT, ROWS, ProbeInfo, write_info
from llmkit.knowledge.records import ProbeRow, Sample, question_of
from llmkit.knowledge.split import entity_key, split_of
from llmkit.knowledge.store import Chunks, Row, Steps, read_rows, writing
from llmkit.knowledge.summary import Counts, Tally
from llmkit.stages.asked import (
    ANSWERS,
    COUNTS,
    DOCUMENTS,
    QUESTIONS,
    SNIPPETS,
    VERDICTS,
    ask_chunks,
    interrogation,
    judge_chunks,
    processes,
    step_keys,
)
from llmkit.stages.common import Worker, main, where_of
from llmkit.stages.documents import check_written, cut, warn_of_few, write_about
from llmkit.stages.engines import AskedModel, check_installed, check_judge, check_writer
from llmkit.stages.probed import model_identity
from llmkit.stages.questions import gather

CHUNK = 512
"""Questions per chunk. Not a setting: batches, and with them the last bits of the logits, do not depend on how many
processes there are."""
SNIPPETS_PER_CHUNK = 64
Split = Literal["train", "heldout"]


def run(worker: Worker) -> Manifest:
    stage, file = interrogation(worker), worker.file
    check(worker)
    state = processes(worker)
    steps = Steps(worker.dir.data / "steps")
    if state.is_main_process:
        steps.begin(step_keys(file))
    state.wait_for_everyone()
    asked = AskedModel(worker, stage.engine, stage.batch_size)

    write_questions(worker, steps, state, asked)
    questions, counts = Chunks(steps.whole(QUESTIONS), CHUNK), Counts.read(steps.whole(COUNTS))
    for text in counts.warnings(questions.num_rows):
        worker.warn(text)
    pool = fewshot_pool(map(question_of, read_rows(questions.path)), stage.ask)
    asking = Asking(stage.ask, pool, asked.chat, worker.file.seed)
    rate = ask_chunks(worker, steps, state, questions, asking, asked)
    own = range(state.process_index, len(questions), state.num_processes)
    num, size = state.num_processes, stage.batch_size
    failures = judge_chunks(worker, steps, questions, own, stage.judge, asked, batch_size=size, num_processes=num)
    state.wait_for_everyone()
    if not state.is_main_process:
        return worker.manifest()

    tally = label(worker, steps, questions, failures)
    write_info(worker.dir.path, identity(file, asked, stage.ask.model_dump(), stage.judge.model_dump()))
    for text in tally.warnings():
        worker.warn(text)
    return worker.manifest(
        data_dir=worker.dir.data.name,
        probe=tally.summary(),
        chat_template_sha256=asked.template.sha256 if asked.template else None,
        stop_token=asked.template.stop_token if asked.template else asked.tokenizer.eos_token,
        metrics=tally.metrics() | counts.metrics() | ({"questions_per_second": round(rate, 2)} if rate else {}),
    )


def check(worker: Worker) -> None:
    """Before any model is loaded: what would stop the stage after hours of asking. Raises UserError."""
    stage, input_model = interrogation(worker), worker.file.input_model
    assert input_model is not None
    check_installed(stage.engine, input_model, worker.file.revision)
    check_judge(stage.judge)
    if stage.documents:
        check_writer(stage.writer)


def write_questions(worker: Worker, steps: Steps, state: PartialState, asked: AskedModel) -> None:
    """Step 1. The main process reads sources and cuts documents, all write questions about snippets."""
    stage, num_chunks = interrogation(worker), 0
    if stage.documents:
        if state.is_main_process and not steps.have(SNIPPETS, DOCUMENTS):
            cut(worker, steps)
        state.wait_for_everyone()
        snippets = Chunks(steps.whole(SNIPPETS), SNIPPETS_PER_CHUNK)
        num_chunks = len(snippets)
        warn_of_few(worker, snippets.num_rows)
        if not steps.have(QUESTIONS, COUNTS):
            write_about(worker, steps, state, snippets, asked)
        state.wait_for_everyone()
    if state.is_main_process and not steps.have(QUESTIONS, COUNTS):
        check_written(worker, steps, num_chunks)
        gather(worker, steps, num_chunks)
    state.wait_for_everyone()


def label(worker: Worker, steps: Steps, questions: Chunks, failures: Counter[str]) -> Tally:
    """Steps 4 and 5. Writes probe.jsonl and heldout.jsonl, row by row."""
    stage, tally = interrogation(worker), Tally()
    splits = earlier_splits(worker, questions)
    rows = zip(
        read_rows(questions.path),
        steps.rows(ANSWERS, len(questions)),
        steps.rows(VERDICTS, len(questions)),
        strict=True,
    )
    with writing(worker.dir.data / ROWS) as write, writing(worker.dir.data / HELDOUT) as write_heldout:
        for number, (row, answers, verdicts) in enumerate(rows, start=1):
            question = question_of(row)
            split = splits.get(entity_key(question.about)) or split_of(question.about, stage.heldout, worker.file.seed)
            probed = probe_row(question, samples(answers, verdicts), stage.thresholds, split)
            write(probed.to_json())
            if split == "heldout":
                write_heldout(heldout_row(probed))
            tally.add(probed, row.get("label"), (answer["error"] for answer in answers["answers"]))
            if number % 10_000 == 0 or number == questions.num_rows:
                worker.log("label", number, questions.num_rows)
        if tally.undecided > stage.judge.max_undecided:
            counts = tally.verdicts["undecided"], tally.num_judged, stage.judge.max_undecided
            raise too_many_undecided(where_of(worker, "judge"), *counts, failures)
    return tally


def samples(answers: Row, verdicts: Row) -> list[Sample]:
    kept = ("text", "temperature", "variant", "logprob", "num_tokens", "finish_reason", "thought")
    return [
        Sample(**{key: answer[key] for key in kept}, verdict=verdict)
        for answer, verdict in zip(answers["answers"], verdicts["verdicts"], strict=True)
    ]


def heldout_row(row: ProbeRow) -> Row:
    """As an evaluation asks it; the judge sees the document there as here."""
    return {
        key: getattr(row, key) for key in ("question", "answers", "entity", "group", "document", "language", "label")
    }


def earlier_splits(worker: Worker, questions: Chunks) -> dict[str, Split]:
    """Entities that an earlier probe put on another side than the seed would: there they stay."""
    stage, splits = interrogation(worker), dict[str, Split]()
    for row in read_rows(questions.path):
        if "split" in row:
            about = question_of(row).about
            if split_of(about, stage.heldout, worker.file.seed) != row["split"]:
                splits[entity_key(about)] = row["split"]
    return splits


def identity(file: StageFile, asked: AskedModel, ask: dict[str, Any], judge: dict[str, Any]) -> ProbeInfo:
    assert file.input_model is not None
    return ProbeInfo(
        model=model_identity(file),
        input_model=file.input_model,
        chat_template_sha256=asked.template.sha256 if asked.template else None,
        seed=file.seed,
        ask=ask,
        judge=judge,
        fingerprint=file.fingerprint,
    )


if __name__ == "__main__":
    main("interrogate", run)
