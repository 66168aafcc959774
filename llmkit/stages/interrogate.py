"""Asks a model questions without their documents, and labels each by how well the model knows its answer.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.interrogate recipe.yaml --stage probe

Questions are written, asked and judged in chunks, which are shared out over the processes and lie in data/steps once
they are finished; a killed stage goes on with the first that is missing. The main process then counts and labels.
With several hosts the run's folder must be on a disk that they share.

    questions.jsonl          see `llmkit.stages.questions`
    answers-00012.jsonl      {"id", "answers": [{"text", "temperature", "variant", "logprob", ...}]}
    verdicts-00012.jsonl     {"id", "verdicts": [...]}, in the order of the answers
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

from accelerate import PartialState

from llmkit.artifacts.manifest import Manifest
from llmkit.artifacts.stagefile import StageFile
from llmkit.chat.ask import Answer, Ask
from llmkit.errors import UserError
from llmkit.knowledge.asking import Asking, fewshot_pool
from llmkit.knowledge.judge import Item, Judge, open_judge
from llmkit.knowledge.labels import probe_row
from llmkit.knowledge.probe import HELDOUT, ROWS, ProbeInfo, write_info
from llmkit.knowledge.records import ProbeRow, Question, Sample
from llmkit.knowledge.split import entity_key, split_of
from llmkit.knowledge.store import Chunks, Row, Steps, read_rows, writing
from llmkit.knowledge.summary import Counts, Tally
from llmkit.stages.asked import (
    ANSWERS,
    COUNTS,
    DOCUMENTS,
    OUTAGE,
    QUESTIONS,
    SNIPPETS,
    VERDICTS,
    Pace,
    interrogation,
    processes,
    seed_of,
    step_keys,
    where_of,
)
from llmkit.stages.common import Worker, main
from llmkit.stages.documents import cut, write_about
from llmkit.stages.engines import AskedModel, engine_of
from llmkit.stages.probed import model_identity
from llmkit.stages.questions import gather, question_of

CHUNK = 512
"""Questions per chunk. Not a setting: batches, and with them the last bits of the logits, do not depend on how many
processes there are."""
SNIPPETS_PER_CHUNK = 64
Split = Literal["train", "heldout"]


def run(worker: Worker) -> Manifest:
    stage, file = interrogation(worker), worker.file
    state = processes(worker)
    steps = Steps(worker.dir.data / "steps")
    if state.is_main_process:
        steps.begin(step_keys(file))
    state.wait_for_everyone()
    asked = AskedModel(worker, stage.engine, stage.batch_size)

    write_questions(worker, steps, state, asked)
    questions = Chunks(steps.whole(QUESTIONS), CHUNK)
    pool = fewshot_pool(map(question_of, read_rows(questions.path)), stage.ask)
    asking = Asking(stage.ask, pool, asked.chat, seed_of(worker))
    rate = ask(worker, steps, state, questions, asking, asked)
    failures = judge(worker, steps, state, questions, asked)
    state.wait_for_everyone()
    if not state.is_main_process:
        return worker.manifest()

    tally, counts = label(worker, steps, questions, failures), Counts.read(steps.whole(COUNTS))
    write_info(worker.dir.path, identity(file, asked, stage.ask.model_dump(), stage.judge.model_dump()))
    for text in (*tally.warnings(), *counts.warnings()):
        worker.warn(text)
    return worker.manifest(
        data_dir=worker.dir.data.name,
        probe=tally.summary(),
        chat_template_sha256=asked.template.sha256 if asked.template else None,
        stop_token=asked.template.stop_token if asked.template else asked.tokenizer.eos_token,
        metrics=tally.metrics() | counts.metrics() | ({"questions_per_second": round(rate, 2)} if rate else {}),
    )


def write_questions(worker: Worker, steps: Steps, state: PartialState, asked: AskedModel) -> None:
    """Step 1. The main process reads sources and cuts documents, all write questions about snippets."""
    stage, num_chunks = interrogation(worker), 0
    if stage.documents:
        if state.is_main_process and not steps.have(SNIPPETS, DOCUMENTS):
            cut(worker, steps)
        state.wait_for_everyone()
        snippets = Chunks(steps.whole(SNIPPETS), SNIPPETS_PER_CHUNK)
        num_chunks = len(snippets)
        if not steps.have(QUESTIONS, COUNTS):
            write_about(worker, steps, state, snippets, asked)
        state.wait_for_everyone()
    if state.is_main_process and not steps.have(QUESTIONS, COUNTS):
        gather(worker, steps, num_chunks)
    state.wait_for_everyone()


def ask(
    worker: Worker, steps: Steps, state: PartialState, questions: Chunks, asking: Asking, asked: AskedModel
) -> float | None:
    """Step 2. Returns questions per second over all processes; None: all chunks were there."""
    missing = steps.missing(ANSWERS, len(questions), state.process_index, state.num_processes)
    if not missing:
        return None
    engine, spec = asked.engine, asking.spec
    pace = Pace(worker, "ask", sum(map(questions.rows_in, missing)), state.num_processes)
    for index in missing:
        batch = [question_of(row) for row in questions[index]]
        asks = [asking.asks(question) for question in batch]
        asked.on_progress = lambda done, total, size=len(batch): pace.show(size * done / total)  # type: ignore[misc]
        answers = engine.answer(
            [one for own in asks for one in own],
            max_new_tokens=spec.max_new_tokens,
            top_p=spec.top_p,
            stop_strings=asking.stop_strings,
            seed=asking.seed,
        )
        rows = [answers_row(question, own, answers) for question, own in zip(batch, asks, strict=True)]
        steps.write(ANSWERS, index, rows)
        pace.add(len(batch))
    asked.on_progress = None
    return pace.rate


def answers_row(question: Question, asks: Sequence[Ask], answers: Iterator[list[Answer]]) -> Row:
    """The answers to one question, variant by variant."""
    said = []
    for variant, (one, given) in enumerate(zip(asks, answers, strict=False)):
        for temperature, answer in zip(one.temperatures, given, strict=True):
            row = asdict(answer) | {"logprob": rounded(answer.logprob), "temperature": temperature, "variant": variant}
            said.append(row)
    return {"id": question.id, "answers": said}


def rounded(logprob: float | None) -> float | None:
    """To four decimals: the rest is noise of float32 and differs by number of threads and processes."""
    return round(logprob, 4) if logprob is not None and math.isfinite(logprob) else None


def judge(worker: Worker, steps: Steps, state: PartialState, questions: Chunks, asked: AskedModel) -> Counter[str]:
    """Step 3. Answers that a judge left undecided before are put to it again. Returns why it left some undecided."""
    stage = interrogation(worker)
    own = range(state.process_index, len(questions), state.num_processes)
    pace = Pace(worker, "judge", sum(map(questions.rows_in, own)), state.num_processes)
    decide: Judge | None = None
    for index in own:
        said = [row["answers"] for row in steps.read(ANSWERS, index)]
        verdicts = known_verdicts(steps, index, said)
        is_open = [
            (i, j)
            for i, row in enumerate(verdicts)
            for j, verdict in enumerate(row)
            if verdict == "undecided" and said[i][j]["finish_reason"] != "error"
        ]
        if is_open or not steps.path(VERDICTS, index).is_file():
            decide = decide or open_the_judge(worker, asked)
            rows = [question_of(row) for row in questions[index]]
            # the same answer to the same question is judged once
            texts = list(dict.fromkeys((i, said[i][j]["text"]) for i, j in is_open))
            items = [Item(rows[i].question, rows[i].answers, text, rows[i].document) for i, text in texts]
            found = dict(zip(texts, decide.judge(items), strict=True))
            for i, j in is_open:
                verdicts[i][j] = found[i, said[i][j]["text"]]
            steps.write(VERDICTS, index, ({"id": q.id, "verdicts": v} for q, v in zip(rows, verdicts, strict=True)))
            num_open = sum(verdicts[i][j] == "undecided" for i, j in is_open)
            num_judged = sum(answer["finish_reason"] != "error" for row in said for answer in row)
            if num_open > max(OUTAGE, stage.judge.max_undecided) * num_judged:
                raise too_many_undecided(worker, num_open, num_judged, failures_of(decide))
        pace.add(questions.rows_in(index))
    return failures_of(decide)


def known_verdicts(steps: Steps, index: int, said: list[list[Row]]) -> list[list[str]]:
    """Verdicts of an earlier run, else undecided for all."""
    if steps.path(VERDICTS, index).is_file():
        return [row["verdicts"] for row in steps.read(VERDICTS, index)]
    return [["undecided"] * len(answers) for answers in said]


def open_the_judge(worker: Worker, asked: AskedModel) -> Judge:
    stage = interrogation(worker)
    engine, chat = engine_of(stage.judge, stage.judge.by, asked, stage.batch_size)
    return open_judge(stage.judge, engine, stage.judge.refusals, seed=seed_of(worker), chat=chat)


def failures_of(judge: Judge | None) -> Counter[str]:
    """Reason -> number of answers that were left undecided. Rules leave none."""
    found: Counter[str] = getattr(judge, "failures", None) or Counter()
    return found


def too_many_undecided(worker: Worker, number: int, total: int, failures: Counter[str]) -> UserError:
    stage, (often,) = interrogation(worker), failures.most_common(1) or [("", 0)]
    what = (
        f"left {number} of {total} answers undecided ({number / total:.1%}, allowed {stage.judge.max_undecided:.1%}); "
        "they count neither as right nor as wrong"
    )
    what += f"; most often: {often[0]}" if often[0] else ""
    cure = "mend or change the judge and run again: the answers and all decided verdicts are kept"
    return UserError(where_of(worker, "judge"), what, f"{cure}; or raise 'judge.max_undecided'")


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
            split = splits.get(entity_key(question.about)) or split_of(question.about, stage.heldout, seed_of(worker))
            probed = probe_row(question, samples(answers, verdicts), stage.thresholds, split)
            write(probed.to_json())
            if split == "heldout":
                write_heldout(heldout_row(probed))
            tally.add(probed, row.get("label"))
            if number % 10_000 == 0 or number == questions.num_rows:
                worker.log("label", number, questions.num_rows)
        if tally.undecided > stage.judge.max_undecided:
            raise too_many_undecided(worker, tally.verdicts["undecided"], tally.num_judged, failures)
    return tally


def samples(answers: Row, verdicts: Row) -> list[Sample]:
    kept = ("text", "temperature", "variant", "logprob", "num_tokens", "finish_reason")
    return [
        Sample(**{key: answer[key] for key in kept}, verdict=verdict)
        for answer, verdict in zip(answers["answers"], verdicts["verdicts"], strict=True)
    ]


def heldout_row(row: ProbeRow) -> Row:
    return {key: getattr(row, key) for key in ("question", "answers", "entity", "group", "label")}


def earlier_splits(worker: Worker, questions: Chunks) -> dict[str, Split]:
    """Entities that an earlier probe put on another side than the seed would: there they stay."""
    stage, splits = interrogation(worker), dict[str, Split]()
    for row in read_rows(questions.path):
        if "split" in row:
            about = question_of(row).about
            if split_of(about, stage.heldout, seed_of(worker)) != row["split"]:
                splits[entity_key(about)] = row["split"]
    return splits


def identity(file: StageFile, asked: AskedModel, ask: dict[str, Any], judge: dict[str, Any]) -> ProbeInfo:
    assert file.input_model is not None
    return ProbeInfo(
        model=model_identity(file),
        input_model=file.input_model,
        chat_template_sha256=asked.template.sha256 if asked.template else None,
        seed=file.run.seed if file.stage.seed is None else file.stage.seed,
        ask=ask,
        judge=judge,
        fingerprint=file.fingerprint,
    )


if __name__ == "__main__":
    main("interrogate", run)
