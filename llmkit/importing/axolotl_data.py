"""axolotl's data sets: the `type` of each says how its rows are read."""

from __future__ import annotations

from typing import Any

from llmkit.importing import common
from llmkit.importing.draft import Draft
from llmkit.importing.foreign import Loc
from llmkit.recipe.trainer_keys import PRACTICE

_SUFFIXES = (".json", ".jsonl", ".parquet", ".csv", ".txt", ".gz")
FORMATS = {"alpaca": "alpaca", "completion": "text", "pretrain": "text", "sharegpt": "sharegpt", "oasst": "oasst"}
"""First word of a `type` -> llmkit's format."""
_PAIRS: dict[str, dict[str, str]] = {
    "intel": {"prompt": "question"},
    "ultra": {},
    "prompt_pairs": {},
    "default": {},
    "icr": {"prompt": "input"},
}
_PAIRS |= {
    "argilla_chat": {},
    "argilla": {"prompt": "instruction", "chosen": "chosen_response", "rejected": "rejected_response"},
}
"""Second word of a preference `type` -> which columns it reads, where they are not prompt, chosen, rejected."""
_OWN_ALPACA = {"field_instruction": "instruction", "field_output": "output", "field_input": "input"}
_OWN_ALPACA |= {"field_system": "system"}
_OWN_PAIRS = {"field_prompt": "prompt", "field_chosen": "chosen", "field_rejected": "rejected"}
"""Keys of a `type` of one's own -> llmkit's names of columns."""
_ROLES = "roles are read by llmkit's own table of names"
_LISTED = {
    "ds_type": "files are told by their names",
    "shards": "set `split`, such as train[:10%]",
    "shards_idx": "set `split`, such as train[:10%]",
    "preprocess_shards": "rows are prepared by llmkit",
    "trust_remote_code": "no code from data repositories is run",
    "message_field_role": _ROLES,
    "message_field_content": _ROLES,
    "message_field_training": "a message's own key `train` says whether it is trained",
    "message_property_mappings": _ROLES,
    "roles": _ROLES,
    "roles_to_train": "the assistant's turns are trained, or all: `assistant_only_loss`",
    "train_on_eos": "the stop token of a trained turn is trained",
    "train_on_eot": "the stop token of a trained turn is trained",
    "drop_system_message": "set the system message in the rows",
    "chat_template": "one template for the whole chain: `model.chat_template`",
    "conversation": "one template for the whole chain: `model.chat_template`",
    "input_format": "one template for the whole chain: `model.chat_template`",
    "split_thinking": "reasoning stays in `reasoning_content`",
    "skip": "set `split`, such as train[100:]",
    "chat_template_jinja": "one template for the whole chain: `model.chat_template`",
    "template_thinking_key": "reasoning stays in `reasoning_content`",
    "field_thinking": "reasoning stands in `reasoning_content`: rename it in the rows",
    "message_field_training_detail": "a turn is trained whole, or not: a message's key `train`",
    "input_transform": "rows are read as they are: change them in the data",
    "field_human": _ROLES,
    "field_model": _ROLES,
    "logprobs_field": "distillation from a teacher's probabilities has no stage",
    "temperature": "distillation from a teacher's probabilities has no stage",
}


def sources(draft: Draft) -> list[dict[str, Any]]:
    """`data` of the stage; `test_datasets` become `heldout`. Raises RecipeError for a `type` that nothing can read."""
    key = "pretraining_dataset" if draft.get("pretraining_dataset") else "datasets"
    found = _sets(draft, key)
    if not found:
        raise draft.refuse((key,), "names no data set", "add datasets: [{path: ..., type: ...}]")
    if draft.get("test_datasets"):
        draft.stage["heldout"] = {"test": _sets(draft, "test_datasets", "heldout.test")}
    return found


def _sets(draft: Draft, key: str, place: str = "data") -> list[dict[str, Any]]:
    value = draft.get(key, [])
    if isinstance(value, str):
        draft.moved((key,), f"{place}[0].path")
        return [{"path": common.safe_path(draft, (key,), value), **_reading(draft, (key,), {})}]
    items = value if isinstance(value, list) else [value]
    wrap = isinstance(value, list)
    return [
        _source(draft, (key, index) if wrap else (key,), item, f"{place}[{index}]") for index, item in enumerate(items)
    ]


def _source(draft: Draft, loc: Loc, item: Any, to: str) -> dict[str, Any]:
    if not isinstance(item, dict) or not item.get("path"):
        raise draft.refuse(loc, "is no data set with a path")
    source: dict[str, Any] = {"path": common.safe_path(draft, (*loc, "path"), item["path"])}
    files = item.get("data_files")
    if files:
        files = files if isinstance(files, list) else [files]
        if len(files) > 1 or not str(files[0]).endswith(_SUFFIXES):
            raise draft.refuse((*loc, "data_files"), "several files of one set", "give each a set of its own")
        local = source["path"] in ("json", "text", "csv", "parquet") or "." in str(source["path"])
        source["path"] = str(files[0]) if local else f"{source['path']}/{files[0]}"
        draft.moved((*loc, "data_files"), f"{to}.path")
    draft.moved((*loc, "path"), f"{to}.path")
    for name in ("name", "split", "revision"):
        if item.get(name) is not None:
            source[name] = str(item[name])
            draft.moved((*loc, name), f"{to}.{name}")
    source |= _reading(draft, loc, item)
    columns = source.get("columns") or {}
    for name in ("type", "field", "field_messages", "field_tools", "field_chosen", "field_rejected", "text_column"):
        where = f"{to}.columns" if name != "type" and columns else f"{to}.format"
        draft.moved((*loc, name), where)
    for name, why in _LISTED.items():
        draft.listed((*loc, name), why)
    return source


def _reading(draft: Draft, loc: Loc, item: dict[str, Any]) -> dict[str, Any]:
    """Format and columns, from `type` and the `field_*` keys."""
    kind = item.get("type")
    if isinstance(kind, dict):
        return _own(draft, loc, kind)
    if draft.kind in PRACTICE:
        draft.listed((*loc, "type"), f"'{kind}': name the columns of the problems in `columns`")
        return {}
    first, _, second = str(kind or "chat_template").partition(".")
    if draft.kind in ("dpo", "reward"):
        return _pairs(draft, loc, item, second or "default")
    if draft.kind == "pretrain" or FORMATS.get(first) == "text":
        column = item.get("field") or item.get("text_column") or "text"
        return {"format": "text", **({} if column == "text" else {"columns": {"text": str(column)}})}
    if first in ("chat_template", "sharegpt"):
        return _conversations(item)
    if first in FORMATS:
        return {"format": FORMATS[first]}
    raise draft.refuse(
        (*loc, "type"),
        f"llmkit reads no rows of type '{kind!s:.60}'",
        f"use one of chat_template, {', '.join(FORMATS)}",
    )


def _conversations(item: dict[str, Any]) -> dict[str, Any]:
    column = str(item.get("field_messages") or ("conversations" if item.get("type") == "sharegpt" else "messages"))
    mapping = item.get("message_property_mappings")
    of_role = item.get("message_field_role") or (mapping.get("role") if isinstance(mapping, dict) else None)
    sharegpt = of_role == "from" or str(item.get("type")).startswith("sharegpt")
    name = "conversations" if sharegpt else "messages"
    named = {name: column, "tools": str(item.get("field_tools") or "tools")}
    columns = {key: value for key, value in named.items() if key != value}
    return {"format": "sharegpt" if sharegpt else "messages", **({"columns": columns} if columns else {})}


def _pairs(draft: Draft, loc: Loc, item: dict[str, Any], style: str) -> dict[str, Any]:
    if style not in (*_PAIRS, "chat_template"):
        raise draft.refuse(
            (*loc, "type"), f"llmkit reads no pairs of type '{item.get('type')!s:.60}'", "name the columns by hand"
        )
    columns: dict[str, str] = dict(_PAIRS.get(style, {}))
    for key, name in (("field_messages", "prompt"), ("field_chosen", "chosen"), ("field_rejected", "rejected")):
        if item.get(key) not in (None, name):
            columns[name] = str(item[key])
    if columns:
        columns = {name: columns.get(name, name) for name in ("prompt", "chosen", "rejected")}
    return {"format": "preference", **({"columns": columns} if columns else {})}


def _own(draft: Draft, loc: Loc, kind: dict[str, Any]) -> dict[str, Any]:
    """A `type` of one's own: columns for alpaca's rows, or of pairs. Wordings of one's own have no place."""
    pairs = draft.kind in ("dpo", "reward")
    names = _OWN_PAIRS if pairs else _OWN_ALPACA
    columns = {name: str(kind[key]) for key, name in names.items() if kind.get(key) not in (None, name)}
    if pairs and columns:
        columns = {name: columns.get(name, name) for name in names.values()}
    for key in names:
        draft.moved((*loc, "type", key), "data[].columns")
    for key in kind:
        draft.listed((*loc, "type", key), "the chat template words the question; put other words into the rows")
    return {"format": "preference" if pairs else "alpaca", **({"columns": columns} if columns else {})}
