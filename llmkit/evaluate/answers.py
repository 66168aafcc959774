"""Answers of a model that are kept on disk, so that no request is made twice: one file per model and its settings.

Lines are appended as answers come. A last line that a kill cut short is passed over and asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmkit.artifacts.files import sha256_of
from llmkit.errors import RunError

MIN_CHUNK = 256
"""Requests between two writings."""
_NAMES = ("_name_or_path", "name_or_path", "_commit_hash")
SAMPLED = "sampled:"
"""Keys of sampled answers begin with it: they belong to a place among the requests."""


class Answers:
    """The answers of one model. `num_asked`, `num_found`: requests of this start that were made, and that were not."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._path = folder / f"{identity[:32]}.jsonl"
        self._known = dict(_read(self._path))
        self.num_asked = self.num_found = 0

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def keep(self, keys: Sequence[str], answers: Sequence[Any]) -> None:
        """Raises RunError where the disk is full or read-only."""
        lines = [json.dumps([key, answer]) + "\n" for key, answer in zip(keys, answers, strict=True)]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                if file.tell() and not _ends_whole(self._path):
                    file.write("\n")
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(str(self._path), f"cannot be written ({error.strerror})", "name another --cache") from error
        self._known.update(zip(keys, answers, strict=True))


def remembered(
    answers: Answers,
    keys: Sequence[str],
    requests: Sequence[Instance],
    ask: Callable[[list[Instance]], list[Any]],
    chunk: int,
) -> list[Any]:
    """Answers to all requests, in order; only those that are not known are asked, `chunk` at a time.

    Sampled ones are asked all together or not at all: their random numbers belong to places among the requests.
    """
    new = list({key: place for place, key in reversed(list(enumerate(keys))) if key not in answers}.values())[::-1]
    if any(keys[place].startswith(SAMPLED) for place in new):
        new = [place for place, key in enumerate(keys) if key not in answers or key.startswith(SAMPLED)]
        chunk = len(new)
    for start in range(0, len(new), max(chunk, 1)):
        places = new[start : start + chunk]
        answers.keep([keys[place] for place in places], ask([requests[place] for place in places]))
    answers.num_asked += len(new)
    answers.num_found += len(requests) - len(new)
    return [answers[key] for key in keys]


def key_of(kind: str, arguments: tuple[Any, ...], is_chat: bool, seed: int, place: int) -> str:
    """What an answer depends on beside the model. `is_chat`: the prompt's ids come from the chat template."""
    settings = arguments[1] if kind == "generate_until" else {}
    is_sampled = bool(settings.get("do_sample")) or bool(settings.get("temperature"))
    key = sha256_of([kind, arguments, is_chat, [seed, place] if is_sampled else None])
    return SAMPLED + key if is_sampled else key


def identity_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Of what is loaded, wherever it came from: every weight, the tokenizer, the template, the libraries."""
    return sha256_of(
        {
            "weights": _digest_of_weights(model),
            "config": {name: str(each) for name, each in model.config.to_dict().items() if name not in _NAMES},
            "generation": model.generation_config.to_json_string() if model.generation_config else "",
            "tokenizer": _tokenizer(tokenizer),
            "device": model.device.type,
            "versions": [version(name) for name in ("llmkit", "torch", "transformers", "lm_eval")],
        }
    )


def _digest_of_weights(model: PreTrainedModel) -> str:
    whole = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return whole.hexdigest()


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return [vocabulary, tokenizer.chat_template, str(tokenizer.special_tokens_map)]


def _read(path: Path) -> list[tuple[str, Any]]:
    if not path.is_file():
        return []
    found = []
    with path.open(encoding="utf-8", newline="\n", errors="replace") as lines:
        for line in lines:
            try:
                key, answer = json.loads(line)
            except ValueError:
                continue
            found.append((key, answer))
    return found


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
