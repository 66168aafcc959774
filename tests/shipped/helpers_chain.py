"""A finished chain on its way to the loopback Hub and back, through faults of every kind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from loopback_hub import LoopbackHub

from llmkit.errors import RunError
from llmkit.hub.push import send
from llmkit.hub.remote import Package
from llmkit.recipe.hub import HubSpec

CREATE, FILES, BATCH, STORED = "/api/repos/create", "*/preupload/*", "*/info/lfs/objects/batch", "/storage/*"
DATA_COMMIT, COMMIT, TAG = "/api/datasets/*/commit/*", "/api/models/*/commit/*", "*/tag/*"
GOING_UP = [
    *((CREATE, what) for what in (500, "drop before", "drop after")),
    *((FILES, what) for what in (500, "cut answer")),
    *((DATA_COMMIT, what) for what in (500, 409, "drop before", "cut request", "drop after")),
    *((TAG, what) for what in (500, "drop after")),
    *((CREATE, what) for what in (500, "drop after")),
    *((BATCH, what) for what in (503, "drop before")),
    *((STORED, what) for what in (500, "drop before", "cut request", "corrupt request", "drop after")),
    *((COMMIT, what) for what in (500, 409, 429, "drop before", "cut request", "cut answer")),
    *((TAG, what) for what in (500, "drop after")),
]
"""In the order in which a push meets them: the data sets' repository is finished before the model's is begun."""
COMING_DOWN = [("HEAD", "*/resolve/*", 500), ("GET", "*/resolve/*", "drop before"), ("GET", STORED, "cut answer")]


def sent_through_faults(hub: LoopbackHub, packages: Sequence[Package], spec: HubSpec) -> int:
    """How many faults struck. Each lasts until the client gives up; then it is mended and the push is repeated."""
    struck = 0
    for path, what in GOING_UP:
        fault = hub.fail("PUT" if path == STORED else "POST", path, what, times=50)
        try:
            send(packages, spec)
        except RunError as error:
            assert hub.token not in str(error)
        struck += fault.done > 0
        hub.plan.faults.clear()
    send(packages, spec)
    return struck


def damage(hub: LoopbackHub, package: Package) -> dict[str, int]:
    """What is wrong with anything that was ever published there; every state of a repository is a commit."""
    repo, wanted = hub.repo(package.repo_id, package.repo_type), {item.path: item.sha256 for item in package.items}
    states = [commit.files for commit in repo.commits.values() if commit.parent is not None]
    found = [{path: _hash(blob.data) for path, blob in files.items() if path != ".gitattributes"} for files in states]
    tagged = hub.files(package.repo_id, package.tag, package.repo_type)
    return {
        "partial": sum(files.keys() != wanted.keys() for files in found),
        "corrupt": sum(files.get(path) not in (None, sha256) for files in found for path, sha256 in wanted.items()),
        "lost": len(wanted.keys() - tagged.keys()),
        "more than one": len(found) - 1,
    }


def pulled_through_faults(hub: LoopbackHub, package: Package) -> dict[str, Any]:
    """Path -> hash of what the client fetched, once each fault has struck it."""
    faults = [hub.fail(*fault) for fault in COMING_DOWN]
    for _ in range(2 * len(faults)):
        try:
            folder = snapshot_download(package.repo_id, repo_type=package.repo_type, revision=package.tag)
        except Exception:  # the fault's own, of whatever kind: then the user repeats it
            continue
        break
    hub.plan.faults.clear()
    return {item.path: _hash((Path(folder) / item.path).read_bytes()) for item in package.items}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
