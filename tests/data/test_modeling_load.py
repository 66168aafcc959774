"""Where models and tokenizers come from, and what is said when they cannot be had."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from llmkit.errors import ModelError
from llmkit.modeling import load, source
from llmkit.online import HUB_TIMEOUT, answers


def test_a_packaged_model_is_found() -> None:
    assert Path(source.resolve("llmkit.tiny:base")).is_dir()
    assert load.load_tokenizer("llmkit.tiny:base").eos_token == "<|endoftext|>"


@pytest.mark.parametrize("name", ["llmkit.tiny:gone", "./gone", "/gone/model", "~/gone"])
def test_a_folder_that_is_not_there_is_not_sought_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        source.resolve(name)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load.load_model(str(tmp_path))


def test_an_unknown_hub_id_without_a_network_is_one_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def no_network(self: Any, name: str, **options: Any) -> None:
        asked.append(options["timeout"])
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_network)
    source._on_hub.cache_clear()
    started = time.monotonic()
    for read in (load.load_tokenizer, load.load_config, load.load_model):
        with pytest.raises(ModelError, match="nobody/none: is neither a local folder nor to be had from the Hub"):
            read("nobody/none")
    assert asked == [HUB_TIMEOUT], "the Hub is asked once for all three"
    assert time.monotonic() - started < 10


class Response:
    headers: dict[str, str] = {}
    request = None

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


@pytest.mark.parametrize(("status", "reachable"), [(503, False), (404, None)])
def test_a_server_error_counts_as_no_answer_and_a_refusal_does_not(status: int, reachable: bool | None) -> None:
    def ask(name: str, **options: Any) -> None:
        error = huggingface_hub.errors.HfHubHTTPError.__new__(huggingface_hub.errors.HfHubHTTPError)
        error.response = Response(status)
        raise error

    if reachable is None:
        with pytest.raises(huggingface_hub.errors.HfHubHTTPError):
            answers(ask, "a/b")
    else:
        assert answers(ask, "a/b") is reachable
