"""Conversations that teach a model who it is, from what the recipe says; and evaluations of who it says that it is.

accelerate launch --config_file recipes/accelerate/single.yaml -m llmkit.stages.identity recipe.yaml --stage identity

The stage needs neither the model nor a GPU: `data/train.jsonl` is for `sft`. Of an evaluation:

evals/<name>.jsonl     every conversation with the model's answers, and what each metric says of it

What is asked does not depend on the run's seed. Processes share the conversations out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from accelerate import PartialState
from accelerate.utils import gather_object

from llmkit.artifacts.manifest import Manifest, Sample
from llmkit.chat.ask import Answer, Ask, Engine
from llmkit.chat.turn import Message, thought_and_said
from llmkit.errors import DataError, RunError
from llmkit.evaluate.results import Document, Metric, TaskResult, columns_of, mean_of
from llmkit.identity.judge import Verdict, judge
from llmkit.identity.questions import Asked, questions
from llmkit.identity.rows import counts, rows
from llmkit.knowledge.store import writing
from llmkit.recipe.identity import IdentityEval, IdentitySpec, IdentityStage
from llmkit.stages.asking import Manner, warn_of_thoughts
from llmkit.stages.common import Worker, main

SLICE = 256
"""Conversations that are held at a time."""
NUM_SAMPLES = 12
RAW_STOPS = ("\n\n", "\nQuestion:")
"""Ends of an answer by a model that goes on writing."""
ACCURACY, PERSONA, CLAIMS = "accuracy", "persona_accuracy", "claims_other"


def run(worker: Worker) -> Manifest:
    stage = identity_stage(worker)
    if not worker.is_main:
        return worker.manifest()
    spec = told(stage.identity, f"stage '{stage.name}'")
    worker.log("write", 0, stage.num_rows)
    made = list(rows(spec, stage, worker.file.seed))
    with writing(worker.dir.data / "train.jsonl") as write:
        for row in made:
            write({"messages": list(row.messages)})
    worker.log("write", stage.num_rows, stage.num_rows)
    return worker.manifest(
        data_dir=worker.dir.data.name,
        metrics=counts(made),
        samples=[
            Sample(prompt=_shown(row.messages[:-1]), completion=row.messages[-1]["content"], label=row.kind)
            for row in made[:NUM_SAMPLES]
        ],
    )


def identity_stage(worker: Worker) -> IdentityStage:
    stage = worker.file.stage
    assert isinstance(stage, IdentityStage), stage.kind
    return stage


def told(spec: IdentitySpec | None, where: str) -> IdentitySpec:
    """Raises DataError without one: a plan fills it in, a stage file by hand may not."""
    if spec is None:
        raise DataError(f"{where}: identity", "is not given", "say at least the 'name'")
    return spec


def evaluate_identity(
    worker: Worker, state: PartialState, spec: IdentityEval, engine: Engine, manner: Manner
) -> TaskResult:
    """`accuracy`: every answer of a conversation is right. `claims_other`: some answer claims to be another assistant,
    or made by another's maker. `persona_accuracy`: right under a system message that gives another name; these
    conversations are in no other metric. `accuracy, kind ...` and, of several, `accuracy, language ...`.

    """
    identity = told(spec.identity, f"evals: {spec.name}")
    asked = questions(identity, spec.num_personas)
    own: list[tuple[int, list[Message]]] = []
    places = range(state.process_index, len(asked), state.num_processes)
    for start in range(0, len(places), SLICE):
        part = places[start : start + SLICE]
        said = converse([asked[place] for place in part], engine, manner, max_new_tokens=spec.max_new_tokens)
        own += zip(part, said, strict=True)
        worker.log(f"ask {spec.name}", len(own), len(places))
    every: list[tuple[int, list[Message]]] = gather_object(own)
    by_place = sorted(every, key=lambda one: one[0])
    warn_of_thoughts(worker, spec.name, [str(turn["content"]) for _, said in by_place for turn in said], manner)
    documents = [_document(place, asked[place], said, identity) for place, said in by_place]
    return TaskResult(spec.name, list(_metrics(documents, asked)), documents)


def converse(asked: Sequence[Asked], engine: Engine, manner: Manner, *, max_new_tokens: int) -> list[list[Message]]:
    """The answers of each conversation, greedy, turn by turn: what the model has said stands before the next turn, and
    what it thought where its template keeps that."""
    said: list[list[Message]] = [[] for _ in asked]
    for number in range(max((len(one.turns) for one in asked), default=0)):
        open_ = [place for place, one in enumerate(asked) if len(one.turns) > number]
        asks = [Ask(_prompt(asked[place], said[place], manner.chat), asked[place].key) for place in open_]
        stops = () if manner.chat else RAW_STOPS
        found = engine.answer(asks, max_new_tokens=max_new_tokens, stop_strings=stops)
        for place, (answer,) in zip(open_, found, strict=True):
            said[place].append(_said(asked[place], answer, manner))
    return said


def _said(asked: Asked, answer: Answer, manner: Manner) -> Message:
    """Raises RunError where a conversation does not fit the model, or its engine fails."""
    if answer.finish_reason == "error":
        cure = "lower 'max_new_tokens', or take a model of a longer context"
        raise RunError(f"identity: {asked.key}", f"was not answered ({answer.error})", cure)
    reasoning, text = thought_and_said(answer.text, thinking=manner.opens)
    kept = {"reasoning_content": reasoning} if manner.thinks and reasoning is not None else {}
    return {"role": "assistant", **kept, "content": text}


def _prompt(asked: Asked, said: Sequence[Message], chat: bool) -> str | tuple[Message, ...]:
    """Up to the turn that is to be answered; for a model without a chat template as plain text."""
    messages = _messages(asked, said)
    if chat:
        return tuple(messages)
    names = {"user": "Question: ", "assistant": "Answer: ", "system": ""}
    return "\n".join([*(f"{names[each['role']]}{each['content']}" for each in messages), "Answer:"])


def _messages(asked: Asked, said: Sequence[Message]) -> list[Message]:
    messages: list[Message] = [{"role": "system", "content": asked.system}] if asked.system else []
    for number, turn in enumerate(asked.turns[: len(said) + 1]):
        messages.append({"role": "user", "content": turn.text})
        if number < len(said):
            messages.append(said[number])
    return messages


def _document(place: int, asked: Asked, said: Sequence[Message], identity: IdentitySpec) -> Document:
    verdicts = [judge(each["content"], turn, identity) for each, turn in zip(said, asked.turns, strict=True)]
    return Document(
        doc_id=place,
        prompt=_shown(_messages(asked, said[:-1])),
        target=asked.turns[-1].persona or identity.name,
        completion=said[-1]["content"],
        metrics=_scores(asked, verdicts),
    )


def _scores(asked: Asked, verdicts: Sequence[Verdict]) -> dict[str, float]:
    is_right = float(all(verdict.is_right for verdict in verdicts))
    if asked.kind == "persona":
        return {PERSONA: is_right}
    claims = float(any(verdict.claims_other for verdict in verdicts))
    language = f"{ACCURACY}, language {asked.language}"
    return {ACCURACY: is_right, CLAIMS: claims, f"{ACCURACY}, kind {asked.kind}": is_right, language: is_right}


def _metrics(documents: Sequence[Document], asked: Sequence[Asked]) -> Iterator[Metric]:
    found = columns_of(document.metrics for document in documents)
    main_ones = (ACCURACY, PERSONA, CLAIMS)
    languages = len({one.language for one in asked})
    for name in (*main_ones, *sorted(set(found) - {*main_ones})):
        if name in found and (languages > 1 or not name.startswith(f"{ACCURACY}, language")):
            yield mean_of(name, found[name])


def to_read(documents: Sequence[Document]) -> list[Sample]:
    """Conversations of which some answer is wrong, and one of each kind that is right."""
    found: dict[str, Sample] = {}
    for document in documents:
        kind = next((name.partition(", kind ")[2] for name in document.metrics if ", kind " in name), "persona")
        is_right = document.metrics[PERSONA if kind == "persona" else ACCURACY] > 0
        is_other = document.metrics.get(CLAIMS, 0.0) > 0
        label = f"{kind}: {'right' if is_right else 'claims another' if is_other else 'wrong'}"
        found.setdefault(label, Sample(prompt=document.prompt, completion=document.completion, label=label))
    return sorted(found.values(), key=lambda sample: sample.label.endswith("right"))[:NUM_SAMPLES]


def _shown(messages: Sequence[Message]) -> str:
    """For people to read: a single question as it is, else who says what."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


if __name__ == "__main__":
    main("identity", run)
