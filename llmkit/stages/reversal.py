"""Evaluations of facts asked from both ends, inside the evaluate stage: "Who is X's son?", and "Whose son is Y?".

A model that read "X's son is Y" a thousand times often cannot say whose son Y is (Berglund et al. 2023, "The Reversal
Curse", arXiv:2309.12288).

evals/<name>.jsonl     every pair with both answers, and what each metric says of it

Which pairs are asked does not depend on the run's seed. Processes share them out; every one gets all results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from llmkit.chat.ask import Engine
from llmkit.errors import DataError
from llmkit.evaluate.results import Document, Metric, TaskResult, columns_of, mean_of
from llmkit.intervals import paired_interval
from llmkit.knowledge.judge import Item, open_judge
from llmkit.knowledge.records import Question
from llmkit.recipe.trials import DIRECTIONS, Direction, ReversalSpec
from llmkit.stages.asking import Manner, greedy, warn_of_thoughts
from llmkit.stages.common import Worker, where_of
from llmkit.stages.frozen import frozen_questions

GAP = "reversal_gap"
SLICE = 256
"""Pairs that are asked at a time."""


@dataclass(frozen=True)
class Pair:
    """One fact, asked both ways."""

    forward: Question
    backward: Question

    def one(self, way: Direction) -> Question:
        return self.forward if way == "forward" else self.backward


Said = tuple[int, list[str], list[bool]]
"""Place of a pair; what was answered each way, and whether it was right."""


def prepare(worker: Worker, specs: Sequence[ReversalSpec]) -> list[list[Pair]]:
    """Before the model is loaded. Raises DataError: pairs that cannot be read."""
    return [_pairs(worker, spec) for spec in specs]


def _pairs(worker: Worker, spec: ReversalSpec) -> list[Pair]:
    """Those of which both questions can be asked."""
    found: dict[Direction, dict[str, Question]] = {}
    for way in DIRECTIONS:
        rejected = worker.dir.path / "evals" / f"{spec.name}.{way}.rejected.jsonl"
        frozen = frozen_questions(worker, spec.name, spec.asked(way), rejected if worker.is_main else None)
        found[way] = {question.source: question for question in frozen.questions}
    pairs = [Pair(one, found["backward"][at]) for at, one in found["forward"].items() if at in found["backward"]]
    if not pairs:
        what = "no row can be asked both ways"
        raise DataError(f"{where_of(worker, 'evals')}: {spec.name}", what, "mend the questions")
    return pairs


def evaluate_reversal(
    worker: Worker, state: PartialState, spec: ReversalSpec, pairs: Sequence[Pair], engine: Engine, manner: Manner
) -> TaskResult:
    """`forward_accuracy`, `backward_accuracy`; `reversal_gap`: the first less the second, pair by pair;
    `backward_of_known`: backward accuracy where forward is right. Of groups `..., <group>`."""
    own: list[Said] = []
    places = range(state.process_index, len(pairs), state.num_processes)
    for start in range(0, len(places), SLICE):
        part = places[start : start + SLICE]
        own += _asked([(place, pairs[place]) for place in part], spec, engine, manner)
        worker.log(f"ask {spec.name}", len(own), len(places))
    every: list[Said] = gather_object(own)
    warn_of_thoughts(worker, spec.name, [text for _, said, _ in every for text in said], manner)
    documents = [_document(place, pairs[place], said, right) for place, said, right in sorted(every)]
    return TaskResult(
        spec.name, metrics_of(documents, [pairs[each.doc_id].forward.group for each in documents]), documents
    )


def _asked(part: Sequence[tuple[int, Pair]], spec: ReversalSpec, engine: Engine, manner: Manner) -> list[Said]:
    judge = open_judge(spec.judge, None, spec.judge.refusals)
    said: list[list[str]] = []
    right: list[list[bool]] = []
    for way in DIRECTIONS:
        asked = [pair.one(way) for _, pair in part]
        prompts = [_prompt(one.question, chat=manner.chat) for one in asked]
        options: dict[str, Any] = {"max_new_tokens": spec.max_new_tokens, "manner": manner, "where": spec.name}
        texts = greedy(engine, prompts, [one.question for one in asked], **options)
        verdicts = judge.judge([Item(one.question, one.answers, text) for one, text in zip(asked, texts, strict=True)])
        said.append(texts)
        right.append([verdict == "correct" for verdict in verdicts])
    return [(place, [each[row] for each in said], [each[row] for each in right]) for row, (place, _) in enumerate(part)]


def _prompt(question: str, *, chat: bool) -> str | list[dict[str, str]]:
    return [{"role": "user", "content": question}] if chat else f"Question: {question}\nAnswer:"


def _document(place: int, pair: Pair, said: Sequence[str], right: Sequence[bool]) -> Document:
    forward, backward = map(float, right)
    numbers = {"backward_accuracy": backward, "forward_accuracy": forward, GAP: forward - backward}
    if forward:
        numbers["backward_of_known"] = backward
    if pair.forward.group:
        numbers |= {f"{name}, {pair.forward.group}": value for name, value in list(numbers.items())}
    return Document(
        doc_id=place,
        prompt=f"{pair.forward.question}\n{pair.backward.question}",
        target=f"{' | '.join(pair.forward.answers)}\n{' | '.join(pair.backward.answers)}",
        completion="\n".join(said),
        metrics=numbers,
    )


def metrics_of(documents: Sequence[Document], groups: Sequence[str]) -> list[Metric]:
    """Means over all pairs, then over those of each group."""
    found = columns_of(each.metrics for each in documents)
    ordered = sorted(found, key=lambda name: ", " in name)
    only_one = len(set(groups)) < 2
    wanted = (name for name in ordered if not (only_one and ", " in name))
    return [mean_of(name, found[name], _interval(name, found)) for name in wanted]


def _interval(name: str, found: dict[str, list[float]]) -> tuple[float, float] | None:
    """Of a gap Newcombe's, of paired shares: that of a mean would not reach below 0 where no pair does."""
    if not name.startswith(GAP):
        return None
    before, after = (found[name.replace(GAP, f"{way}_accuracy")] for way in ("backward", "forward"))
    return paired_interval(before, after, seed=0)
