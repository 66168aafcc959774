"""The files that are published, before anything is sent: which, from where, and that none holds what it must not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO
from safetensors import SafetensorError, safe_open

from llmkit.artifacts.files import read_json, sha256_of_file
from llmkit.errors import ModelError, UserError
from llmkit.hub.paths import Paths, is_absolute
from llmkit.hub.subject import Made, Subject
from llmkit.secrets import LONGEST, secrets

_MODEL_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json",
    "tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "spiece.model", "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja",
)  # fmt: skip
_NAMES_A_PATH = {"config.json": "_name_or_path", "tokenizer_config.json": "name_or_path"}
_DATA_FILES = {
    "refusals": ("train", "pairs", "tool_calls"),
    "rollout": ("rollouts",),
    "rank": ("train", "pairs"),
    "best_of_n": ("train",),
}
_TEXT = (".json", ".jsonl", ".md", ".html", ".yaml", ".txt", ".jinja")
_CHUNK = 8 * 2**20


@dataclass(frozen=True)
class Item:
    """One file: its path in the repository, and its content or where that lies."""

    path: str
    content: bytes | Path

    @cached_property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def sha256(self) -> str:
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        return sha256_of_file(self.content)

    def texts(self) -> Iterator[str]:
        """The content piece by piece; each begins with the end of the one before."""
        if isinstance(self.content, bytes):
            yield self.content.decode("utf-8", "replace")
            return
        kept = ""
        with self.content.open("rb") as file:
            while read := file.read(_CHUNK):
                text = kept + read.decode("utf-8", "replace")
                yield text
                kept = text[-LONGEST:]


@dataclass(frozen=True)
class DataItem:
    """One configuration of the data set."""

    config: str
    made: Made
    item: Item
    num_rows: int


def model_files(folder: Path) -> tuple[list[Item], list[str]]:
    """What is published of a model's folder, and the names of what is left out.

    Raises:
        ModelError: there are no weights in safetensors, or a file of them is cut short.
    """
    found = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    weights = [path for path in found if path.suffix == ".safetensors"]
    if not weights:
        raise ModelError(str(folder), "has no weights in safetensors", "nothing else is published: save it again")
    for path in weights:
        _check(path)
    for index in folder.glob("*.safetensors.index.json"):
        if lost := sorted({*read_json(index)["weight_map"].values()} - {path.name for path in weights}):
            raise ModelError(str(folder), f"lacks {lost[0]}, which {index.name} names", "save it again")
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path not in found)
    return [Item(path.relative_to(folder).as_posix(), _without_path(path)) for path in found], left


def _check(path: Path) -> None:
    try:
        with safe_open(path, framework="np") as tensors:
            if not tensors.keys():
                raise ModelError(str(path), "holds no tensors", "save the model again")
    except (SafetensorError, OSError) as error:
        raise ModelError(str(path), f"is not whole ({error})", "save the model again") from None


def _without_path(path: Path) -> bytes | Path:
    """A config's file without the folder that it was loaded from."""
    key = _NAMES_A_PATH.get(path.name)
    if key is None:
        return path
    data = read_json(path)
    if not (isinstance(data.get(key), str) and is_absolute(data[key])):
        return path
    del data[key]
    return _json(data)


def recipe_file(subject: Subject, paths: Paths) -> Item:
    """The resolved recipe, in which no path is of this machine."""
    data = paths.hidden(subject.recipe)
    if is_absolute(str((subject.recipe.get("run") or {}).get("output_dir", ""))):
        data["run"]["output_dir"] = "runs"
    text = StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.dump(data, text)
    return Item("recipe.yaml", text.getvalue().encode())


def manifest_files(subject: Subject, paths: Paths) -> list[Item]:
    """What every finished stage says of itself."""
    listed = [made for made in subject.stages if made.manifest.kind != "push"]
    return [
        Item(f"manifests/{made.dir.path.name}.json", _json(paths.hidden(made.manifest.model_dump()))) for made in listed
    ]


def data_files(stages: Sequence[Made]) -> list[DataItem]:
    """A configuration for every file of rows that stages left on the way."""
    found = []
    for made in stages:
        for place, name in enumerate(_DATA_FILES[made.manifest.kind]):
            path = made.dir.path / str(made.manifest.data_dir) / f"{name}.jsonl"
            if not path.is_file() or not path.stat().st_size:
                continue
            config = made.name if place == 0 else f"{made.name}-{name}"
            content = _unnamed(path) if made.manifest.kind == "rank" and name == "pairs" else path
            item = Item(f"data/{config}.jsonl", content)
            found.append(DataItem(config, made, item, sum(text.count("\n") for text in _lines(item))))
    return found


def _lines(item: Item) -> Iterator[str]:
    if isinstance(item.content, bytes):
        yield item.content.decode("utf-8", "replace")
    else:
        with item.content.open(encoding="utf-8", errors="replace") as file:
            yield from file


def _unnamed(path: Path) -> bytes:
    """Pairs without the names of the people who ranked."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    names = {name: f"rater-{place}" for place, name in enumerate(sorted({str(row.get("rater")) for row in rows}), 1)}
    rows = [row | {"rater": names[str(row["rater"])]} if "rater" in row else row for row in rows]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def check_secrets(items: Iterable[Item], known: Sequence[str]) -> None:
    """Raises UserError that names every file with something secret in it, and never the secret."""
    found = []
    for item in items:
        if item.path.endswith(_TEXT):
            kinds = dict.fromkeys(kind for text in item.texts() for _, kind in secrets(text, known))
        elif item.path.endswith(".safetensors") and isinstance(item.content, Path):
            kinds = dict.fromkeys(kind for _, kind in secrets(_metadata(item.content), known))
        else:
            continue
        found += [f"{item.path} holds {kind}" for kind in kinds]
    if found:
        cure = "take it out of what the run was made from and run that stage again; nothing was sent"
        raise UserError("push", "; ".join(found), cure)


def _metadata(path: Path) -> str:
    with safe_open(path, framework="np") as tensors:
        return json.dumps(tensors.metadata() or {})


def check_paths(items: Iterable[Item], paths: Paths) -> None:
    """Raises UserError for a text of llmkit's own that still names a folder of this machine."""
    for item in items:
        for text in item.texts() if isinstance(item.content, bytes) else ():
            if root := paths.left(text):
                raise UserError(
                    f"push: {item.path}", f"names the folder {root} of this machine", "report this to llmkit"
                )


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")
