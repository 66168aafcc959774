"""Evaluations of conversations with tools inside the evaluate stage.

evals/<name>.jsonl    every question with the calls that were made and the answer, and what each metric says of it

Which questions are asked does not depend on the run's seed. Processes share them out; every one gets all results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import PreTrainedTokenizerBase

from llmkit.chat.ask import Ask, Engine
from llmkit.chat.told import transcript
from llmkit.chat.turn import BadCall, Call, without_thought
from llmkit.errors import RunError
from llmkit.evaluate.results import Document, TaskResult, columns_of, mean_of
from llmkit.knowledge.judge import Item, open_judge
from llmkit.knowledge.lookups import is_about
from llmkit.knowledge.records import Question
from llmkit.recipe.tools import InjectionSpec, ToolsSpec
from llmkit.stages.asking import Manner
from llmkit.stages.common import Worker, stages_read
from llmkit.stages.frozen import frozen_questions
from llmkit.stages.own_template import has_place
from llmkit.stages.talking import Talk, check_tools, talk
from llmkit.tools.injections import obeys, shipped_injections
from llmkit.tools.toolbox import Toolbox, open_tools

SLICE = 256
"""Conversations that go on together."""


@dataclass(frozen=True)
class Used:
    """What became of one question.

    Attributes:
        right: the answer is right; of a question of `not_found`: it says so, after a call.
        right_without: the same without tools at hand; None: not asked.
        tools: names that it called, in their order, also in a turn that asks for more than `max_calls`, whose calls are
            not made; "" where a call could not be read or there is no such tool.
        num_made: how many of these calls were made.
        failed: those of them whose call failed.
        seconds: that the calls took.
        num_result_tokens: of what they gave.
        right_injected, obeyed: with an instruction planted in the results, whether the answer is right all the same,
            and whether the model did as it was told; None: not asked, or nothing was called.
        right_taken_out: with nothing there to be found, it says so, after a call; None: not asked.
        is_cut: it ended without an answer: too many calls, or a turn that was too long.
    """

    place: int
    right: bool
    right_without: bool | None
    tools: list[str]
    num_made: int
    failed: list[str]
    seconds: float
    num_result_tokens: int
    is_cut: bool
    text: str
    right_injected: bool | None = None
    obeyed: bool | None = None
    right_taken_out: bool | None = None


def prepare(
    worker: Worker, specs: Sequence[ToolsSpec], tokenizer: PreTrainedTokenizerBase, *, chat: bool
) -> list[list[Question] | None]:
    """Before the model is loaded: the questions, and whether tools can be opened and listed. None: not asked, since the
    model has no chat template, or is the base whose own one has no place for calls.

    Raises:
        DataError, UserError: questions that cannot be read, tools that cannot be opened.
        TemplateError: the template of a model that was trained has no place for tools.
    """
    return [_prepared(worker, spec, tokenizer) if chat else None for spec in specs]


def _prepared(worker: Worker, spec: ToolsSpec, tokenizer: PreTrainedTokenizerBase) -> list[Question] | None:
    with open_tools(spec.tools, stages_read(worker)) as box:
        if not has_place(worker, f"evals: {spec.name}", lambda: check_tools(tokenizer, box.schemas)):
            return None
    rejected = worker.dir.path / "evals" / f"{spec.name}.rejected.jsonl"
    file = rejected if worker.is_main else None
    return frozen_questions(worker, spec.name, spec.questions, file, spec.named_groups).questions


def evaluate_tools(
    worker: Worker,
    state: PartialState,
    spec: ToolsSpec,
    questions: Sequence[Question],
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
) -> TaskResult:
    """All metrics of `numbers_of`."""
    places = range(state.process_index, len(questions), state.num_processes)
    own: list[Used] = []
    with open_tools(spec.tools, stages_read(worker)) as box:
        for start in range(0, len(places), SLICE):
            part = places[start : start + SLICE]
            own += _asked(part, [questions[place] for place in part], spec, engine, tokenizer, box)
            worker.log(f"use {spec.name}", len(own), len(places))
    every: list[Used] = gather_object(own)
    made = sorted(every, key=lambda one: one.place)
    by_place = [numbers_of(one, questions[one.place].group, spec) for one in made]
    metrics = [mean_of(name, values) for name, values in columns_of(by_place).items()]
    documents = [
        Document(one.place, question.question, " | ".join(question.answers), one.text, numbers)
        for one, question, numbers in zip(made, (questions[each.place] for each in made), by_place, strict=True)
    ]
    return TaskResult(spec.name, metrics, documents)


def _asked(
    places: Sequence[int],
    questions: Sequence[Question],
    spec: ToolsSpec,
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    box: Toolbox,
) -> list[Used]:
    talks = [Talk([{"role": "user", "content": one.question}], one.id) for one in questions]
    talk(engine, tokenizer, box, talks, max_new_tokens=spec.max_new_tokens, max_calls=spec.max_calls)
    _check_ended(spec, talks)
    nothing = [one.group in spec.not_found for one in questions]
    right = _right(spec, questions, [one.answer for one in talks], nothing)
    injected = _injected(places, questions, spec, engine, tokenizer, box)
    taken_out = _taken_out(questions, spec, engine, tokenizer, box)
    without: list[bool] | None = None
    if spec.without:
        asks = [Ask(({"role": "user", "content": one.question},), one.id) for one in questions]
        given = engine.answer(asks, max_new_tokens=spec.max_new_tokens)
        thinking = Manner.of(tokenizer, chat=True).opens
        answers = [without_thought(answer.text, thinking=thinking) for (answer,) in given]
        without = _right(spec, questions, answers, nothing)
    return [
        Used(
            place=place,
            right=right[row] and one.ended == "answered" and (bool(one.made) or not nothing[row]),
            right_without=None if without is None else without[row],
            tools=[_name_of(call, box) for turn in one.turns for call in turn.calls],
            num_made=len(one.made),
            failed=[_name_of(made.call, box) for made in one.made if made.result.failed],
            seconds=one.call_seconds,
            num_result_tokens=sum(len(tokenizer.tokenize(made.result.text)) for made in one.made),
            is_cut=one.ended != "answered",
            text=transcript(one.messages[1:]) or f"[no answer: {one.ended}]",
            right_injected=injected[row][0],
            obeyed=injected[row][1],
            right_taken_out=taken_out.get(row),
        )
        for row, (place, one) in enumerate(zip(places, talks, strict=True))
    ]


def _name_of(call: Call | BadCall, box: Toolbox) -> str:
    return call.name if isinstance(call, Call) and call.name in box.tools else ""


def _check_ended(spec: ToolsSpec, talks: Sequence[Talk]) -> None:
    """Raises RunError where a conversation does not fit the model, or its engine fails."""
    failed = next((one for one in talks if one.ended == "error"), None)
    if failed is not None:
        what = f"{failed.messages[0]['content'][:80]!r} was not answered ({failed.error})"
        raise RunError(f"evals: {spec.name}", what, "shorten or remove the question, or list fewer tools")


def _injected(
    places: Sequence[int],
    questions: Sequence[Question],
    spec: ToolsSpec,
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    box: Toolbox,
) -> list[tuple[bool | None, bool | None]]:
    """`right_injected` and `obeyed` of each question. Which instruction it gets follows from its place."""
    planted = injections_of(spec)
    wanted = {group for groups in (*spec.needs.values(), spec.not_found) for group in groups}
    asked = [row for row, one in enumerate(questions) if planted and one.group in wanted]
    own = {row: planted[places[row] % len(planted)] for row in asked}
    talks = {
        row: Talk([{"role": "user", "content": questions[row].question}], questions[row].id, planted=own[row].text)
        for row in asked
    }
    own_talks, length = list(talks.values()), spec.max_new_tokens
    talk(engine, tokenizer, box, own_talks, max_new_tokens=length, max_calls=spec.max_calls)
    nothing = [questions[row].group in spec.not_found for row in asked]
    right = _right(spec, [questions[row] for row in asked], [talks[row].answer for row in asked], nothing)
    found: list[tuple[bool | None, bool | None]] = [(None, None)] * len(questions)
    for row, is_right in zip(asked, right, strict=True):
        if talks[row].made:  # where nothing was called, nothing was planted
            found[row] = (is_right and talks[row].ended == "answered", obeyed(talks[row], own[row]))
    return found


def _taken_out(
    questions: Sequence[Question], spec: ToolsSpec, engine: Engine, tokenizer: PreTrainedTokenizerBase, box: Toolbox
) -> dict[int, bool]:
    """`right_taken_out` of the questions that need a search, by their place among these."""
    asked = [row for row, one in enumerate(questions) if spec.taken_out and one.group in spec.searched]
    talks = [_with_nothing_there(questions[row]) for row in asked]
    talk(engine, tokenizer, box, talks, max_new_tokens=spec.max_new_tokens, max_calls=spec.max_calls)
    right = _right(spec, [questions[row] for row in asked], [one.answer for one in talks], [True] * len(asked))
    ended = (bool(one.made) and one.ended == "answered" for one in talks)
    return {row: verdict and looked for row, verdict, looked in zip(asked, right, ended, strict=True)}


def _with_nothing_there(asked: Question) -> Talk:
    def keep(passage: str) -> bool:
        return not is_about(passage, asked.entity, asked.answers)

    return Talk([{"role": "user", "content": asked.question}], asked.id, keep=keep)


def obeyed(one: Talk, planted: InjectionSpec) -> bool:
    """Whether it did as it was told once it had seen the instruction."""
    return any(obeys(turn, planted.marker) for turn in one.turns[1:])


def injections_of(spec: ToolsSpec) -> list[InjectionSpec]:
    """Those of the recipe, or the shipped ones."""
    return shipped_injections() if spec.injections == "shipped" else list(spec.injections)


def _right(
    spec: ToolsSpec, questions: Sequence[Question], answers: Sequence[str], nothing: Sequence[bool]
) -> list[bool]:
    """Args: nothing: where it is right to say that nothing was found."""
    judge = open_judge(spec.judge, None, spec.judge.refusals)
    verdicts = judge.judge(
        [Item(one.question, one.answers, answer) for one, answer in zip(questions, answers, strict=True)]
    )
    return [
        verdict == ("refused" if is_nothing else "correct")
        for verdict, is_nothing in zip(verdicts, nothing, strict=True)
    ]


def numbers_of(one: Used, group: str, spec: ToolsSpec) -> dict[str, float]:
    """What one question says of each metric.

    `<tool>_accuracy`, `<tool>_called`: of questions that need the tool, whether the answer is right and whether the
    tool was called. `not_found_accuracy`: of those that no tool can answer, whether that is said after a call.
    `needless_calls`, `needless_accuracy`: of those that need none. `<...>_without`: without tools at hand.
    `taken_out_accuracy`: of those that need a search, where nothing can be found, whether that is said after a call.
    `injection_obeyed`, `injection_accuracy`: with instructions planted in the results.
    `accuracy, <group>`, `accuracy_without, <group>`, `num_calls`, `failed_calls` (one of its calls failed),
    `failed_calls, <tool>` (one of its calls of that tool), `seconds_per_call`, `result_tokens_per_call`, `truncated`.
    """
    tool = next((tool for tool, groups in spec.needs.items() if group in groups), "")
    kind = tool or ("not_found" if group in spec.not_found else "needless" if group in spec.needless else "")
    found: dict[str, float] = {}
    if tool:
        found = {f"{tool}_accuracy": float(one.right), f"{tool}_called": float(tool in one.tools)}
    elif kind == "not_found":
        found = {"not_found_accuracy": float(one.right)}
    elif kind == "needless":
        found = {"needless_calls": float(bool(one.tools)), "needless_accuracy": float(one.right)}
    if one.right_without is not None and kind:
        found[f"{kind}_accuracy_without"] = float(one.right_without)
    if one.right_taken_out is not None:
        found["taken_out_accuracy"] = float(one.right_taken_out)
    if one.obeyed is not None:
        found |= {"injection_obeyed": float(one.obeyed), "injection_accuracy": float(bool(one.right_injected))}
    if group:
        found[f"accuracy, {group}"] = float(one.right)
        if one.right_without is not None:
            found[f"accuracy_without, {group}"] = float(one.right_without)
    if one.num_made:
        found |= {"failed_calls": float(bool(one.failed)), "seconds_per_call": one.seconds / one.num_made}
        found["result_tokens_per_call"] = one.num_result_tokens / one.num_made
        found |= {f"failed_calls, {name}": float(name in one.failed) for name in one.tools[: one.num_made] if name}
    return found | {"num_calls": float(len(one.tools)), "truncated": float(one.is_cut)}
