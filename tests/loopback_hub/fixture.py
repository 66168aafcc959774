"""Fixtures that point the client at a loopback Hub, in this process and in those that it starts.

huggingface_hub and datasets read the environment once, when they are imported: so their constants are set too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loopback_hub.server import LoopbackHub


def environment(hub: LoopbackHub, home: Path) -> dict[str, str]:
    """What a process needs to talk to `hub` alone, with caches of its own below `home`."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def redirect(patch: pytest.MonkeyPatch, hub: LoopbackHub, home: Path) -> None:
    """Has the client of this process ask `hub`, as the environment would have done at its start."""
    import datasets
    import huggingface_hub
    from huggingface_hub.utils import _http

    constants, config = huggingface_hub.constants, datasets.config
    patch.setattr(constants, "ENDPOINT", hub.endpoint)
    patch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    patch.setattr(constants, "HF_HOME", str(home))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        patch.setattr(constants, name, str(home / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    patch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
    patch.setattr(constants, "AGENT_HARNESSES_PATH", str(home / ".agent_harnesses.json"))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
    patch.setattr(_http, "_HUB_ORIGINS", frozenset({_http._url_origin(hub.endpoint)}))
    patch.setattr(config, "HF_ENDPOINT", hub.endpoint)
    patch.setattr(config, "HUB_DATASETS_URL", f"{hub.endpoint}/datasets/{{repo_id}}/resolve/{{revision}}/{{path}}")
    patch.setattr(config, "HF_HUB_OFFLINE", False)
    patch.setattr(config, "HF_DATASETS_CACHE", home / "datasets")
    _forget()


def _forget() -> None:
    """What this process keeps of the Hub that it asked before."""
    from huggingface_hub.hf_file_system import HfFileSystem
    from huggingface_hub.utils import close_session

    HfFileSystem.clear_instance_cache()
    close_session()
    if hub := sys.modules.get("transformers.utils.hub"):
        hub._hf_api = None
    if source := sys.modules.get("llmkit.modeling.source"):
        source._on_hub.cache_clear()
        source._adapter_on_hub.cache_clear()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A fresh Hub of its own; this process and its children talk to it. Its own mistakes fail the test."""
    home = tmp_path / "hf_home"
    with LoopbackHub() as served:
        redirect(monkeypatch, served, home)
        for name, value in environment(served, home).items():
            monkeypatch.setenv(name, value)
        yield served
        _forget()
    assert not served.broken, served.broken[0]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Has the client's retries not sleep; the seconds that they asked for."""
    import time

    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    asked: list[float] = []
    fake: Any = SimpleNamespace(**{name: getattr(time, name) for name in dir(time)} | {"sleep": asked.append})
    monkeypatch.setattr(_http, "time", fake)
    monkeypatch.setattr(file_download, "time", fake)
    return asked
