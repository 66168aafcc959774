"""Where a model's files are: a folder, a Python package, or the Hub and what the cache holds of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelInfo, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # type: ignore[attr-defined]
from safetensors import SafetensorError

from llmkit.artifacts.shipped import in_package
from llmkit.errors import ModelError
from llmkit.online import LOG_IN, answers, cache_only, refusal

ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_ADAPTER_FILES = [ADAPTER_WEIGHTS, "*.json", "*.jinja", "*.txt", "*.model"]
"""What is fetched of an adapter's repository: no pickles, no code."""


def resolve(name_or_path: str) -> str:
    """A folder's path, or the Hub id as it is. Raises ModelError for a path that does not exist."""
    packaged = in_package(name_or_path)
    path = packaged if packaged is not None else Path(name_or_path).expanduser()
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", ADAPTER)):
            raise ModelError(
                str(path), "has no config.json, so it is not a model folder", "give the folder that holds it"
            )
        return str(path)
    if packaged is not None or path.is_file() or name_or_path.startswith((".", "/", "~")):
        raise ModelError(name_or_path, "no such model folder", f"the current folder is {Path.cwd()}")
    return name_or_path


@cache
def _on_hub(name: str, revision: str | None) -> frozenset[str] | None:
    """Names of its files, asked once: None where the Hub cannot be reached. Raises ModelError where it refuses."""
    found: list[ModelInfo] = []

    def ask(repo_id: str, **options: Any) -> None:
        found.append(HfApi().model_info(repo_id, **options))

    try:
        answered = answers(ask, name, revision=revision)
    except (HfHubHTTPError, HFValidationError) as error:
        raise _unreachable(name, revision, error) from error
    return frozenset(file.rfilename for file in found[0].siblings or ()) if answered else None


@contextmanager
def source_of(name_or_path: str, revision: str | None) -> Iterator[str]:
    """The folder or Hub id to load from; without a network the local cache alone. Errors become ModelError."""
    path = resolve(name_or_path)
    online = Path(path).is_dir() or _on_hub(path, revision) is not None
    try:
        with cache_only(not online):
            yield path
    except (OSError, ValueError, KeyError, HTTPError, SafetensorError) as error:
        raise _unreachable(name_or_path, revision, error) from error


def adapter_folder(name_or_path: str, revision: str | None = None) -> Path | None:
    """The folder of an adapter, for one on the Hub that of its files in the cache; None: a whole model.

    Raises ModelError for a folder that does not exist, or where the Hub refuses.
    """
    path = resolve(name_or_path)
    if not Path(path).is_dir():
        return _adapter_on_hub(path, revision)
    return Path(path) if (Path(path) / ADAPTER).is_file() else None


@cache
def _adapter_on_hub(name: str, revision: str | None) -> Path | None:
    files = _on_hub(name, revision)
    if files is None:  # no network: the cache alone
        is_adapter = isinstance(try_to_load_from_cache(name, ADAPTER, revision=revision), str)
    else:
        is_adapter = ADAPTER in files
    if not is_adapter:
        return None
    with source_of(name, revision) as source:
        folder = snapshot_download(source, revision=revision, allow_patterns=_ADAPTER_FILES, ignore_patterns=["*/*"])
    return Path(folder)


def fold(name: str, revision: str | None) -> str:
    """The cure where whole weights are needed in an adapter's place."""
    spelled = name if revision is None or Path(resolve(name)).is_dir() else f"{name}@{revision}"
    return f"fold it into its base (`llmkit export {spelled} --to vllm --out FOLDER`) and give that folder"


def _unreachable(name: str, revision: str | None, error: Exception) -> ModelError:
    refused = refusal(error, "model", revision)
    if refused:
        return ModelError(name, *refused)
    first = first_line(error)
    if Path(resolve(name)).is_dir():
        return ModelError(name, f"cannot be loaded ({first})", "check that the folder is complete")
    what = f"is neither a local folder nor to be had from the Hub ({first})"
    cure = f"check the name and the network, {LOG_IN} if it is private, or give a local folder"
    return ModelError(name, what, cure)


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
