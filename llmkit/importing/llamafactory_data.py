"""LLaMA-Factory's data sets: names, what dataset_info.json says of them, mixtures."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llmkit.importing import common
from llmkit.importing.draft import Draft
from llmkit.importing.foreign import as_number

INFO = "dataset_info.json"
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
_ONLINE = "ONLINE"
"""A `dataset_dir` with which names are Hub ids."""
MAX_BYTES = 10_000_000


def sources(draft: Draft) -> list[dict[str, Any]]:
    """`data` of the stage. Raises RecipeError for sets that no dataset_info.json describes, and for pictures."""
    names = _names(draft, "dataset")
    if not names:
        raise draft.refuse(("dataset",), "names no data set")
    described = _described(draft)
    found = [_source(draft, name, described) for name in names]
    _mixture(draft, found)
    _samples(draft, found)
    draft.moved(("dataset",), "data[].path", "" if described else f"no {INFO} was found: check the paths")
    aside = _names(draft, "eval_dataset")
    if not described and draft.get("dataset_dir") != _ONLINE:
        _note_names(draft, names, "data")
        _note_names(draft, aside, "heldout.test")
    if aside:
        held = [_source(draft, name, described) for name in aside]
        draft.stage["heldout"] = {"test": held}
        draft.moved(("eval_dataset",), "heldout.test")
    return found


def _note_names(draft: Draft, names: list[str], to: str) -> None:
    """Without the list nobody knows which file or set of the Hub such a name means."""
    if names:
        why = (
            f"no {INFO} was found, and {', '.join(names)} are names in it, not paths: give its folder as `dataset_dir`"
        )
        draft.note(to, f"{why} and import again, or write Hub ids or files, and each set's `format`")


def _names(draft: Draft, key: str) -> list[str]:
    value = draft.get(key, [])
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise draft.refuse((key,), "is no list of names")
    return [name.strip() for name in names if name.strip()]


def _described(draft: Draft) -> dict[str, Any]:
    """The descriptions that lie in `dataset_dir`, `data/`, or beside the file; empty if there are none."""
    folder, parent = str(draft.get("dataset_dir", "data")), draft.foreign.path.parent
    for path in (Path(folder) / INFO, parent / folder / INFO, parent / INFO):
        if path.is_file() and path.stat().st_size < MAX_BYTES:
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise draft.refuse(("dataset",), f"{path} cannot be read ({error!s:.80})") from None
            return {"": str(path.parent), **data} if isinstance(data, dict) else {}
    return {}


def _source(draft: Draft, name: str, described: dict[str, Any]) -> dict[str, Any]:
    if not described:
        return {"path": common.safe_path(draft, ("dataset",), name), **_format(draft, {})}
    entry = described.get(name)
    if not isinstance(entry, dict):
        near = get_close_matches(name, [key for key in described if key], n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"describe it in {described['']}/{INFO}"
        raise draft.refuse(("dataset",), f"{INFO} describes no '{name:.60}'", hint)
    entry = {**entry, **{key: entry[key] if isinstance(entry.get(key), dict) else {} for key in ("columns", "tags")}}
    pictures = {"images", "videos", "audios"} & set(entry["columns"])
    if pictures:
        raise draft.refuse(
            ("dataset",), f"'{name:.60}' has {', '.join(sorted(pictures))}", "llmkit trains on text alone"
        )
    source = {"path": _path(draft, name, entry, described[""])}
    for key, to in (("subset", "name"), ("split", "split")):
        if entry.get(key):
            source[to] = str(entry[key])
    if isinstance(entry.get("num_samples"), int):
        source["num_rows"] = entry["num_samples"]
    return source | _format(draft, entry)


def _path(draft: Draft, name: str, entry: dict[str, Any], folder: str) -> str:
    path = entry.get("hf_hub_url")
    if path is None and entry.get("file_name"):
        path = str(Path(folder) / str(entry["file_name"]))
    if path is None:
        raise draft.refuse(("dataset",), f"'{name:.60}' lies neither on the Hub nor in a file", "give it a file_name")
    return common.safe_path(draft, ("dataset",), path)


def _format(draft: Draft, entry: dict[str, Any]) -> dict[str, Any]:
    """Format and columns of the rows, by LLaMA-Factory's own names of columns."""
    given = {k: str(v) for k, v in (entry.get("columns") or {}).items() if isinstance(v, str)}
    turns = entry.get("formatting") == "sharegpt"
    if draft.kind == "pretrain":
        return {"format": "text", **_columns(_named(draft, given, {"prompt": "text"}, {"text": "text"}))}
    if draft.kind in ("dpo", "reward"):
        names = {("messages" if turns else "prompt"): "prompt", "chosen": "chosen", "rejected": "rejected"}
        first = "conversations" if turns else "instruction"
        default = {"prompt": first, "chosen": "chosen", "rejected": "rejected"} if entry else {}
        return {"format": "preference", **_columns(_named(draft, given, names, default), whole=True)}
    if turns and (entry.get("tags") or {}).get("role_tag") == "role":
        names = {"messages": "messages", "tools": "tools"}
        return {"format": "messages", **_columns(_named(draft, given, names, {"messages": "conversations"}))}
    if turns:
        names = {"messages": "conversations", "system": "system", "tools": "tools"}
        return {"format": "sharegpt", **_columns(_named(draft, given, names))}
    return {"format": "alpaca", **_columns(_named(draft, given, _ALPACA))} if entry else {}


def _named(
    draft: Draft, given: dict[str, str], names: dict[str, str], default: dict[str, str] | None = None
) -> dict[str, str]:
    """llmkit's name of a column -> this file's. Args: names: LLaMA-Factory's name -> llmkit's. Raises RecipeError."""
    if lost := sorted(set(given) - set(names)):
        what = f"{INFO} names columns that llmkit does not read in such rows: {', '.join(lost):.80}"
        raise draft.refuse(("dataset",), what, "put what they hold into the other columns, and take them out of it")
    return {**(default or {}), **{names[key]: column for key, column in given.items()}}


def _columns(names: dict[str, str], whole: bool = False) -> dict[str, Any]:
    """`columns`, where one of them has another name; of pairs then all three."""
    if all(name == column for name, column in names.items()):
        return {}
    return {"columns": names if whole else {name: column for name, column in names.items() if name != column}}


def _samples(draft: Draft, found: list[dict[str, Any]]) -> None:
    if draft.get("max_samples") is None:
        return
    most = draft.count("max_samples", 1)
    for source in found:
        if "fraction" not in source:
            source["num_rows"] = most
    draft.moved(("max_samples",), "data[].num_rows", "of each set; a smaller one gives all that it has")


def _mixture(draft: Draft, found: list[dict[str, Any]]) -> None:
    """`interleave_*` with probabilities is llmkit's `fraction`; `concat` is what sources without it do."""
    shares = draft.get("interleave_probs")
    if shares is not None and str(draft.get("mix_strategy", "concat")).startswith("interleave"):
        parts = [
            as_number(part)
            for part in (
                shares.split(",") if isinstance(shares, str) else shares if isinstance(shares, list) else [shares]
            )
        ]
        numbers = [part for part in parts if isinstance(part, (int, float)) and part > 0]
        if len(numbers) != len(found):
            raise draft.refuse(("interleave_probs",), f"needs a share above 0 for each of {len(found)} data sets")
        for source, number in zip(found, numbers, strict=True):
            if len(found) > 1:
                source["fraction"] = round(number / sum(numbers), 6)
        draft.moved(("interleave_probs",), "data[].fraction")
        draft.moved(("mix_strategy",), "data[].fraction", "no row stands twice")
    draft.list_all(
        {"mix_strategy": "sets are put together and shuffled", "interleave_probs": "only interleaving reads it"}
    )
