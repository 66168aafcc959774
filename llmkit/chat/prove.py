"""Proofs about a tokenizer with its chat template, ours or anyone's, without a model and without data.

Each proof renders a few probe messages and looks at ids and mask. What holds for them holds for the data, because a
template treats messages of one shape alike; what depends on the rows is preflight's matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from llmkit.chat.encode import added_in_front
from llmkit.chat.parse import TOOL_TEMPLATES, parse
from llmkit.chat.render import Rendered, prompt_ids, render
from llmkit.chat.template import (
    MARKS_CURE,
    ChatTemplate,
    Message,
    expand,
    has_generation_marks,
    shipped_names,
    template_of,
)
from llmkit.errors import Problem, TemplateError

SYSTEM = {"role": "system", "content": "Probe system, probe."}
TALK: list[Message] = [
    {"role": "user", "content": "Probe question one? 为什么 🌍"},
    {"role": "assistant", "content": "Probe answer one. 散乱 👋"},
    {"role": "user", "content": "Probe question two? почему"},
    {"role": "assistant", "content": "Probe answer two. 🙂"},
]
_QUERY, _RESULT = "Probe query 探す", "Probe result найдено"
TOOL_TALK: list[Message] = [
    TALK[0],
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "search", "arguments": {"query": _QUERY}}}],
    },
    {"role": "tool", "content": _RESULT},
    TALK[3],
]
_EMPTY_THINK = re.compile(r"\A\s*<think>\s*</think>\s*")
_OUR_CURE = "use a shipped template: chat_template: chatml"

Proof = Callable[[PreTrainedTokenizerBase, ChatTemplate], Iterator[Problem]]


def prove(tokenizer: PreTrainedTokenizerBase) -> list[Problem]:
    """Everything wrong with the tokenizer's chat template for training; empty if all proofs hold.

    Proved: its tokens are single ids; each assistant turn is masked, with its stop token and nothing else; the
    generation prompt is the supervised prefix; a conversation is a prefix of its continuation, reasoning included;
    calls of tools are trained, their results never; no system prompt appears that no one wrote; one BOS where the
    tokenizer has one; reasoning survives; shipped templates parse back.
    """
    try:
        template = template_of(tokenizer)
    except TemplateError as error:
        return list(error.problems)
    if template is None:
        return [Problem("tokenizer", "it has no chat template", _OUR_CURE)]
    problems: list[Problem] = []
    for proof in PROOFS:
        try:
            problems += proof(tokenizer, template)
        except TemplateError as error:
            problems += error.problems
    return list(dict.fromkeys(problems))


def prove_tokens(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> Iterator[Problem]:
    """Each declared token is one special id, and there is a stop token."""
    where = _where(template)
    if template.stop_token is None:
        yield Problem(where, "no special token follows an assistant's content, so a turn has no stop token", _OUR_CURE)
    for token in dict.fromkeys([*template.special_tokens, *([template.stop_token] if template.stop_token else [])]):
        if len(tokenizer.encode(token, add_special_tokens=False)) != 1:
            cure = "put the template on with apply_template, which adds its tokens"
            yield Problem(where, f"its token {token} is not a single token of this tokenizer", cure)


def prove_mask(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> Iterator[Problem]:
    """Trained are the content and the stop token of each assistant turn, and nothing else."""
    where = _where(template)
    if not has_generation_marks(template):
        yield Problem(where, "it has no {% generation %} marks, so the mask would be empty or all ones", MARKS_CURE)
        return
    for talk in (TALK[:2], TALK):
        answers = [message["content"] for message in talk if message["role"] == "assistant"]
        runs = trained_texts(tokenizer, render(tokenizer, talk))
        if len(runs) != len(answers):
            yield Problem(where, f"the mask has {len(runs)} stretches for {len(answers)} assistant turns", MARKS_CURE)
            continue
        for answer, run in zip(answers, runs, strict=True):
            yield from _prove_run(where, template.stop_token or "", answer, run)


def _prove_run(where: str, stop: str, answer: str, run: str) -> Iterator[Problem]:
    before, found, after = _EMPTY_THINK.sub("", run).partition(answer)
    if not found:
        yield Problem(where, f"the mask covers {run!r} where the assistant says {answer!r}", MARKS_CURE)
        return
    if stop and stop not in after:
        yield Problem(where, f"the stop token {stop} is outside the mask: the model never learns to stop", MARKS_CURE)
    extra = [text for text in (before, after.removeprefix(stop)) if text]
    if extra:
        yield Problem(where, f"the mask also covers {extra[0]!r}, which the assistant does not write", MARKS_CURE)


def prove_prompt(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> Iterator[Problem]:
    """The generation prompt is exactly what precedes the trained tokens of the answer."""
    is_marked = has_generation_marks(template)
    for end in (2, 4):
        prompt = prompt_ids(tokenizer, TALK[: end - 1])
        full = render(tokenizer, TALK[:end], train_on="last_assistant" if is_marked else "all")
        if 1 not in full.assistant_masks:
            return  # prove_mask has said so
        front = full.input_ids[: full.assistant_masks.index(1) if is_marked else len(prompt)]
        if prompt != front:
            what = (
                f"the generation prompt ends {_tail(tokenizer, prompt)!r}, but in training the answer follows "
                f"{_tail(tokenizer, front)!r}: the model would be asked in a way it was never taught"
            )
            yield Problem(_where(template), what, "begin {% generation %} where the generation prompt ends")
            return


def prove_turns(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> Iterator[Problem]:
    """A conversation of n turns is a prefix of that of n + 1 turns, with and without reasoning."""
    answer = TALK[1]
    variants = {
        "": answer,
        "with reasoning_content": {**answer, "reasoning_content": "Probe reasoning."},
        "with <think> in the content": {**answer, "content": "<think>\nProbe.\n</think>\n\n" + answer["content"]},
    }
    for kind, variant in variants.items():
        talk = [TALK[0], variant, *TALK[2:]]
        try:
            short, long = (render(tokenizer, talk[:end], train_on="all").input_ids for end in (2, 4))
        except TemplateError:
            if not kind:
                raise
            continue  # this template refuses reasoning, which is its right
        if long[: len(short)] != short:
            what = f"the first turn {kind} renders differently once a second one follows".replace("  ", " ")
            cure = "let the template write earlier turns as it wrote them when they were the last"
            yield Problem(_where(template), what, cure)


def prove_reasoning(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> Iterator[Problem]:
    """Reasoning written in the content, also as a model returns it without the opening tag, is neither lost nor
    wrapped a second time."""
    for content in ("<think>\nProbe thought.\n</think>\n\nProbe end.", "Probe thought.\n</think>\n\nProbe end."):
        text, _ = expand(tokenizer, template.source, [TALK[0], {"role": "assistant", "content": content}])
        turn = text.partition(TALK[0]["content"])[2]
        order = re.findall(r"</think>|Probe thought\.|Probe end\.", turn)
        if order != ["Probe thought.", "</think>", "Probe end."]:
            yield Problem(_where(template), f"it corrupts reasoning in the content: {turn!r}", "use chatml_think")
            return


def prove_tools(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> Iterator[Problem]:
    """Where it has a place for tools: a call is trained with its stop token, a result never, and the answer to a result
    follows the generation prompt."""
    where = _where(template)
    try:
        text, _ = expand(tokenizer, template.source, TOOL_TALK)
    except TemplateError:
        return  # no place for tools, which is its right
    if _QUERY not in text or _RESULT not in text or not has_generation_marks(template):
        return  # `render` refuses the messages whose calls it would leave out
    full = render(tokenizer, TOOL_TALK)
    runs = trained_texts(tokenizer, full)
    if any(_RESULT in run for run in runs):
        yield Problem(where, "it trains the results of tools, which the model does not write", MARKS_CURE)
    elif len(runs) != 2 or _QUERY not in runs[0] or not runs[0].endswith(template.stop_token or ""):
        yield Problem(where, "it does not train a tool call with the stop token behind it", MARKS_CURE)
    elif (prompt := prompt_ids(tokenizer, TOOL_TALK[:3])) != full.input_ids[: len(prompt)]:
        yield Problem(where, "a tool's result renders differently once an answer follows", _OUR_CURE)


def prove_system(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> Iterator[Problem]:
    """Without a system message, only markup precedes the first user message."""
    text, _ = expand(tokenizer, template.source, TALK)
    added = sorted((token.content for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    atoms = re.compile("|".join([*map(re.escape, added), "."]), re.DOTALL)
    head = atoms.findall(text.partition(TALK[0]["content"])[0])
    between = atoms.findall(text.partition(TALK[1]["content"])[2].partition(TALK[2]["content"])[0])
    while head and between and head[-1] == between[-1]:  # the user's header, as it stands before the second question
        head.pop()
        between.pop()
    injected = " ".join("".join(" " if atom in added else atom for atom in head).split())
    if injected:
        yield Problem(_where(template), f"it adds a system prompt that no one wrote: {injected!r}", _OUR_CURE)


def prove_bos(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> Iterator[Problem]:
    """One BOS if the tokenizer puts one before plain text, and never two."""
    bos = tokenizer.bos_token_id
    ids = render(tokenizer, TALK, train_on="all").input_ids
    if bos is not None and ids[:2] == [bos, bos]:
        yield Problem(_where(template), f"it begins with two BOS tokens {tokenizer.bos_token}", "write it once")
    if bos is not None and bos in added_in_front(tokenizer) and ids[0] != bos:
        what = f"it begins without {tokenizer.bos_token}, which the tokenizer puts before any other text"
        yield Problem(_where(template), what, "begin the template with {{ bos_token }}")


def prove_round_trip(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> Iterator[Problem]:
    """Shipped templates only: parsing gives the messages back."""
    if template.name not in shipped_names():
        return
    talks = [[SYSTEM, *TALK]]
    if template.name in TOOL_TEMPLATES:
        talks.append([SYSTEM, *TOOL_TALK])
    if any(parse(tokenizer, render(tokenizer, talk).input_ids) != talk for talk in talks):
        yield Problem(_where(template), "parsing does not give the messages back", "report this as a bug of llmkit")


PROOFS: tuple[Proof, ...] = (
    prove_tokens,
    prove_mask,
    prove_prompt,
    prove_turns,
    prove_reasoning,
    prove_tools,
    prove_system,
    prove_bos,
    prove_round_trip,
)


def trained_texts(tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> list[str]:
    """The text of each stretch of trained tokens, in order."""
    pairs = zip(rendered.input_ids, rendered.assistant_masks, strict=True)
    runs = [[token for token, _ in run] for trained, run in groupby(pairs, key=lambda pair: pair[1]) if trained]
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]


def _where(template: ChatTemplate) -> str:
    return f"chat template {template.name}"


def _tail(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids[-8:], clean_up_tokenization_spaces=False))
