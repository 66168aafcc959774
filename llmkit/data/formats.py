"""Raw rows of the field's formats -> one of five canonical rows.

    {"text": str}
    {"messages": [...], "tools": [...]?}
    {"prompt": str, "completion": str}                    or both lists of messages, with "tools"?
    {"prompt": ..., "chosen": ..., "rejected": ...}       all strings, or all lists of messages
    {"prompt": ..., "answers": [...], "rankings": [[...], ...]}    as above; a list of ranks for each rater, 1 is best

A message keeps every key that is not None, such as `train`, `reasoning_content` or `tool_calls`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from llmkit.data.calls import spelled_tools, value_of
from llmkit.data.function_calling import functions_of, glaive, toolformer, xlam
from llmkit.data.messages import BadRow, Message, Row, check_dialogue, normalise, text_of
from llmkit.errors import DataError

# Columns of each format; those before the bar must be there.
COLUMNS = {
    "messages": ("messages", "|", "tools", "functions"),
    "sharegpt": ("conversations", "|", "system", "tools"),
    "ranking": ("prompt", "answers", "rankings", "|", "tools"),
    "preference": ("chosen", "rejected", "|", "prompt"),
    "oasst": ("|", "message_id", "parent_id", "role", "text", "rank", "deleted", "prompt", "replies"),
    "alpaca": ("instruction", "output", "|", "input", "system"),
    "prompt_completion": ("prompt", "completion", "|", "tools"),
    "ultrachat": ("data", "|"),
    "xlam": ("query", "answers", "tools", "|"),
    "glaive": ("chat", "system", "|"),
    "text": ("text", "|"),
    "toolformer": ("text", "|"),  # named by the recipe alone: rows with a column `text` are `text`
}
_OASST_MARKS = ({"message_id", "parent_id", "text"}, {"message_tree_id", "prompt"}, {"replies", "text"})
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")


def recognise(columns: set[str]) -> str | None:
    """The format that a row with these columns has; None if it fits none."""
    if any(marks <= columns for marks in _OASST_MARKS):
        return "oasst"
    return next((name for name in COLUMNS if name != "oasst" and set(_required(name)) <= columns), None)


def _required(name: str) -> tuple[str, ...]:
    return COLUMNS[name][: COLUMNS[name].index("|")]


def check_columns(where: str, columns: dict[str, str], format: str | None) -> str | None:
    """The format that a column map means.

    Raises:
        DataError: the map names no known format or columns that the format does not have.
    """
    name = format or (recognise(set(columns)) if columns else None)
    if columns and name is None:
        known = "; ".join(f"{key}: {', '.join(_required(key))}" for key in COLUMNS if key != "oasst")
        raise DataError(where, f"'columns' maps {', '.join(columns)}, which fits no format", f"known are {known}")
    known_columns = [column for column in COLUMNS[name] if column != "|"] if name else []
    for key in columns:
        if key not in known_columns:
            near = get_close_matches(key, known_columns, n=1)
            cure = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known_columns)}"
            raise DataError(where, f"'columns' names '{key}', which the format {name} does not have", cure)
    return name


def convert(row: Any, format: str, columns: dict[str, str]) -> Row:
    """One raw row -> its canonical row. Raises BadRow with the reason if it cannot be trained on."""
    if not isinstance(row, dict):
        raise BadRow(f"a row must be an object with columns, this is {type(row).__name__}")
    row = renamed(row, columns)
    if missing := [key for key in _required(format) if key not in row]:
        raise BadRow(f"missing column {', '.join(missing)} (has {', '.join(map(str, row))})")
    result = CONVERTERS[format](row)
    if row.get("tools") and "tools" not in result and ("messages" in result or isinstance(result.get("prompt"), list)):
        result["tools"] = _tools(row["tools"])
    return result


def renamed(row: Row, columns: dict[str, str]) -> Row:
    """The row with the columns that a map names under their new names. Raises BadRow where one is missing."""
    if not columns:
        return row
    if missing := [name for name in columns.values() if name not in row]:
        near = get_close_matches(missing[0], [str(key) for key in row], n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise BadRow(f"missing column {', '.join(missing)} (has {', '.join(map(str, row))}){hint}")
    rest = {key: value for key, value in row.items() if key not in columns.values() and key not in columns}
    return rest | {key: row[name] for key, name in columns.items()}


def _tools(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            value = value_of(value)
        except (ValueError, RecursionError):
            raise BadRow("tools is a string that is not JSON") from None
    if not isinstance(value, list):
        raise BadRow(f"tools is {type(value).__name__}, not a list")
    return value


def _text(row: Row) -> Row:
    return {"text": text_of(row["text"], "text")}


def _messages(row: Row) -> Row:
    messages = normalise(row["messages"], "messages")
    check_dialogue(messages)
    functions = {"tools": functions_of(row["functions"], "functions")} if row.get("functions") else {}
    return {"messages": messages, **functions} | _listed(messages, row)


def _sharegpt(row: Row) -> Row:
    messages = normalise(row["conversations"], "conversations")
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": text_of(row["system"], "system")})
    check_dialogue(messages, alternating=True)
    return {"messages": messages} | _listed(messages, row)


def _listed(messages: list[Message], row: Row) -> Row:
    """Messages and tools where the system's message lists these, as Hermes does: the chat template lists them anew."""
    found = spelled_tools(messages[0]["content"]) if messages[0]["role"] == "system" else None
    if found is None:
        return {}
    told, tools = found
    system = [{**messages[0], "content": told}] if told else []
    return {"messages": [*system, *messages[1:]], "tools": _tools(row["tools"]) if row.get("tools") else tools}


def _alpaca(row: Row) -> Row:
    question = text_of(row["instruction"], "instruction")
    if row.get("input"):
        question += "\n\n" + text_of(row["input"], "input")
    system = [{"role": "system", "content": text_of(row["system"], "system")}] if row.get("system") else []
    return {"messages": [*system, _user(question), _assistant(text_of(row["output"], "output"))]}


def _ultrachat(row: Row) -> Row:
    turns = row["data"]
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise BadRow("data is not a list of strings")
    messages = [(_user, _assistant)[index % 2](turn) for index, turn in enumerate(turns)]
    if len(messages) % 2:
        raise BadRow("data holds an odd number of turns: the last has no answer")
    check_dialogue(messages, alternating=True)
    return {"messages": messages}


def _prompt_completion(row: Row) -> Row:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(completion, list) and completion and all(isinstance(answer, str) for answer in completion):
        completion = completion[0]  # several accepted answers, as in nq_open: the first is the canonical one
    if isinstance(prompt, str) and isinstance(completion, str):
        return {"prompt": text_of(prompt, "prompt"), "completion": text_of(completion, "completion")}
    front = _side(prompt, "prompt", _user)
    back = _side(completion, "completion", _assistant)
    check_dialogue(front + back)
    if not any(message["role"] == "assistant" for message in back):
        raise BadRow("completion has no assistant message")
    return {"prompt": front, "completion": back}


def _side(value: Any, where: str, wrap: Callable[[str], Message]) -> list[Message]:
    if isinstance(value, str):
        return [wrap(text_of(value, where))]
    return normalise([value] if isinstance(value, dict) else value, where)


def _preference(row: Row) -> Row:
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str) and not prompt:
        return _pair([], _hh_dialogue(chosen, "chosen"), _hh_dialogue(rejected, "rejected"))
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        sides = {"chosen": text_of(chosen, "chosen"), "rejected": text_of(rejected, "rejected")}
        if chosen == rejected:
            raise BadRow("chosen and rejected are the same")
        return {"prompt": text_of(prompt, "prompt"), **sides}
    front = _side(prompt, "prompt", _user) if prompt else []
    sides_ = [_side(value, where, _assistant) for value, where in ((chosen, "chosen"), (rejected, "rejected"))]
    # UltraFeedback has the prompt as a string and again at the head of both sides
    is_repeated = bool(front) and all(side[: len(front)] == front for side in sides_)
    return _pair([] if is_repeated else front, *sides_)


def _ranking(row: Row) -> Row:
    prompt, answers, rankings = row["prompt"], row["answers"], row["rankings"]
    if not isinstance(answers, list) or len(answers) < 2:
        raise BadRow("answers is no list of two or more")
    if isinstance(rankings, list) and rankings and not isinstance(rankings[0], list):
        rankings = [rankings]
    _check_rankings(rankings, len(answers))
    if isinstance(prompt, str) and all(isinstance(answer, str) for answer in answers):
        return {"prompt": text_of(prompt, "prompt"), "answers": answers, "rankings": rankings}
    front = _side(prompt, "prompt", _user)
    sides = [_answer(answer, f"answers[{index}]") for index, answer in enumerate(answers)]
    for index, side in enumerate(sides):
        _check_side(side, f"answers[{index}]")
        check_dialogue(front + [{**message, "content": message["content"].strip() or "nothing"} for message in side])
    return {"prompt": front, "answers": sides, "rankings": rankings}


def _answer(value: Any, where: str) -> list[Message]:
    """An answer may be empty: that is one to rank last."""
    if isinstance(value, str):
        return [_assistant(value)]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        content = value[0].get("content")
        if isinstance(content, str) and not content.strip():
            return [_assistant(content)]
    side = normalise(value, where)
    if side[-1]["role"] != "assistant":
        raise BadRow(f"{where} does not end with an assistant message")
    return side


def _check_rankings(rankings: Any, num_answers: int) -> None:
    if not isinstance(rankings, list) or not rankings:
        raise BadRow("rankings is no list of ranks")
    for ranks in rankings:
        whole = isinstance(ranks, list) and all(isinstance(r, int) and not isinstance(r, bool) and r > 0 for r in ranks)
        if not whole or len(ranks) != num_answers:
            raise BadRow(f"rankings has no whole number above 0 for each of {num_answers} answers: {ranks!r:.80}")
    if all(len(set(ranks)) < 2 for ranks in rankings):
        raise BadRow("rankings puts all answers in one place: nothing is learned from it")


def _pair(front: list[Message], chosen: list[Message], rejected: list[Message]) -> Row:
    if chosen == rejected:
        raise BadRow("chosen and rejected are the same")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and chosen[shared - 1]["role"] == "assistant":
        shared -= 1
    prompt = front + chosen[:shared]
    if not prompt:
        raise BadRow("there is no prompt, and chosen and rejected begin differently")
    for side in (chosen, rejected):
        check_dialogue(prompt + side[shared:])
        if side[-1]["role"] != "assistant":
            raise BadRow("chosen or rejected does not end with an assistant message")
        if any(message["role"] == "user" for message in side[shared:]):
            raise BadRow("chosen and rejected part before their last turn: several answers are compared at once")
        _check_side(side[shared:], "chosen or rejected")
    return {"prompt": prompt, "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _check_side(side: list[Message], where: str) -> None:
    """An answer is one stretch of tokens, but for the results of tools."""
    if any(first["role"] == second["role"] == "assistant" for first, second in pairwise(side)):
        raise BadRow(f"{where} has messages of the assistant side by side, with nothing between them")


def _hh_dialogue(text: str, where: str) -> list[Message]:
    before, *turns = _HH_TURN.split(text_of(text, where))
    if before.strip() or not turns:
        raise BadRow(f"there is no prompt, and {where} is no dialogue of '\\n\\nHuman:' and '\\n\\nAssistant:' turns")
    pairs = zip(turns[::2], turns[1::2], strict=True)
    return [(_user if who == "Human" else _assistant)(said.strip()) for who, said in pairs]


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


CONVERTERS: dict[str, Callable[[Row], Row]] = {
    "text": _text,
    "toolformer": toolformer,
    "xlam": xlam,
    "glaive": glaive,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "ultrachat": _ultrachat,
    "prompt_completion": _prompt_completion,
    "ranking": _ranking,
    "preference": _preference,
    "oasst": _messages,  # after llmkit.data.trees has made conversations of the messages
}
