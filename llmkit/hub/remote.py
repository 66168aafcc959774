"""A repository on the Hub: what is there, whether it may be replaced, and one commit that replaces it.

A commit holds all files or none. Files that were sent before a fault are not sent again: the Hub knows their hashes.
What was committed is compared with what was meant before a tag names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from llmkit.artifacts.manifest import Published
from llmkit.errors import RunError
from llmkit.hub.files import Item
from llmkit.hub.trouble import AGAIN, told
from llmkit.recipe.hub import HubSpec

MARKER = "llmkit.json"
"""Says which files of a repository llmkit put there, and what they were."""
_OWN = {".gitattributes", MARKER}
_ATTEMPTS = 2
_TIMEOUT = 20.0
RepoType = Literal["model", "dataset"]


@dataclass(frozen=True)
class Package:
    """What goes into one repository."""

    repo_id: str
    repo_type: RepoType
    items: Sequence[Item]
    tag: str
    message: str

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items)


@dataclass(frozen=True)
class Found:
    """A repository as it is."""

    head: str
    private: bool
    files: dict[str, str]
    """Path -> SHA-256 of a file in LFS, else git's hash."""
    tags: dict[str, str]
    has_branch: bool


def look(api: HfApi, package: Package, branch: str) -> Found | None:
    """None where there is no such repository yet."""
    with told(package.repo_id):
        try:
            info = api.repo_info(package.repo_id, repo_type=package.repo_type, timeout=_TIMEOUT)
        except RepositoryNotFoundError as error:
            if error.response is not None and error.response.status_code == 401:
                api.whoami()  # a token that is not accepted looks like no repository
            return None
        private = bool(info.private)
        try:
            info = api.repo_info(
                package.repo_id, repo_type=package.repo_type, revision=branch, files_metadata=True, timeout=_TIMEOUT
            )
            has_branch = True
        except RevisionNotFoundError:
            info = api.repo_info(package.repo_id, repo_type=package.repo_type, files_metadata=True, timeout=_TIMEOUT)
            has_branch = False
        refs = api.list_repo_refs(package.repo_id, repo_type=package.repo_type)
        tags = {tag.name: tag.target_commit for tag in refs.tags}
        return Found(str(info.sha), private, _hashes(getattr(info, "siblings", None) or []), tags, has_branch)


def _hashes(siblings: Sequence[object]) -> dict[str, str]:
    found = {}
    for each in siblings:
        lfs = getattr(each, "lfs", None)
        found[str(each.rfilename)] = str(lfs.sha256 if lfs else each.blob_id)  # type: ignore[attr-defined]
    return found


def is_there(item: Item, found: Found) -> bool:
    """Whether the repository has this very file."""
    there = found.files.get(item.path)
    return there is not None and there == (item.sha256 if len(there) == 64 else git_hash(item))


def git_hash(item: Item) -> str:
    data = item.content if isinstance(item.content, bytes) else item.content.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def marker(items: Sequence[Item], run: str, stage: str) -> Item:
    files = {item.path: {"sha256": item.sha256, "git": git_hash(item) if item.size < 2**25 else ""} for item in items}
    data = {"made_by": "llmkit", "format": 1, "run": run, "stage": stage, "files": files}
    return Item(MARKER, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def check(api: HfApi, package: Package, found: Found, spec: HubSpec, overwrite: bool) -> list[str]:
    """Files of the repository that the commit must take away: those of an earlier push, or with `overwrite` all.

    Raises RunError where it is not as the recipe says, or holds what others than llmkit put there.
    """
    if found.private != spec.private:
        is_now, wanted = ("private", "public") if found.private else ("public", "private")
        cure = f"change it on the Hub, or set 'hub.private: {str(found.private).lower()}'"
        raise RunError(package.repo_id, f"is {is_now} on the Hub, and is to be {wanted}", cure)
    if spec.tag is not None and spec.tag in found.tags and not is_published(package, found):
        what = f"already has a tag '{spec.tag}', of commit {found.tags[spec.tag][:8]}"
        raise RunError(package.repo_id, what, "give another 'hub.tag', or leave it out")
    new = {item.path for item in package.items}
    if not {*found.files} - _OWN or is_published(package, found):
        return []
    ours = _marked(api, package, found)
    if overwrite:
        return sorted({*found.files} - new - _OWN)
    if ours is None:
        shown = ", ".join(sorted({*found.files} - _OWN)[:5])
        raise RunError(package.repo_id, f"holds files that llmkit did not put there ({shown})", _CURE)
    changed = [
        path for path in sorted(new & {*found.files} - _OWN) if not _unchanged(ours.get(path), found.files[path])
    ]
    if changed:
        what = f"{', '.join(changed[:5])} was put there or changed by others since llmkit published"
        raise RunError(package.repo_id, what, _CURE)
    return sorted(({*ours} & {*found.files}) - new - _OWN)


_CURE = "take another repo_id, or replace everything in it with --overwrite (its history keeps it)"


def _unchanged(ours: dict[str, str] | None, there: str) -> bool:
    return ours is not None and there in (ours.get("sha256"), ours.get("git"))


def _marked(api: HfApi, package: Package, found: Found) -> dict[str, dict[str, str]] | None:
    """What llmkit put there last; None where it never did."""
    if MARKER not in found.files:
        return None
    with told(package.repo_id):
        path = api.hf_hub_download(package.repo_id, MARKER, repo_type=package.repo_type, revision=found.head)
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        return dict(data["files"]) if data["made_by"] == "llmkit" else None
    except (ValueError, KeyError, TypeError):
        return None


def is_published(package: Package, found: Found) -> bool:
    """Whether all of it is there and nothing of an earlier push is left: the marker lists every file."""
    return found.has_branch and all(is_there(item, found) for item in reversed(package.items))


def publish(
    api: HfApi,
    package: Package,
    spec: HubSpec,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Published:
    """Create, commit, compare, tag. Raises RunError; then nothing or all of it is published, and a repeat finishes."""
    found = look(api, package, spec.revision)
    if found is None:
        say(f"creating {package.repo_id} ({'private' if spec.private else 'public'} {package.repo_type})")
        with told(package.repo_id):
            api.create_repo(package.repo_id, repo_type=package.repo_type, private=spec.private, exist_ok=True)
        found = _looked(api, package, spec.revision)
    sent, gone = "", list[str]()
    for _ in range(_ATTEMPTS):
        if found.head != sent:  # what this push has sent itself is nobody else's
            gone = check(api, package, found, spec, overwrite)
        if is_published(package, found):
            break
        sent = _commit(api, package, spec, found, [path for path in gone if path in found.files], say)
        found = _looked(api, package, spec.revision)
    if not is_published(package, found):
        wrong = [item.path for item in package.items if not is_there(item, found)]
        raise RunError(package.repo_id, f"the Hub has something else than was sent: {', '.join(wrong[:5])}", AGAIN)
    return _tagged(api, package, spec, found)


def _looked(api: HfApi, package: Package, branch: str) -> Found:
    found = look(api, package, branch)
    if found is None:
        raise RunError(package.repo_id, "is gone again", AGAIN)
    return found


def _commit(
    api: HfApi, package: Package, spec: HubSpec, found: Found, gone: Sequence[str], say: Callable[[str], None]
) -> str:
    """Hash of the commit."""
    adds = [
        CommitOperationAdd(item.path, str(item.content) if isinstance(item.content, Path) else item.content)
        for item in package.items
        if not is_there(item, found)
    ]
    deletes = [CommitOperationDelete(path, is_folder=False) for path in gone]
    say(f"sending {len(adds)} of {len(package.items)} files to {package.repo_id}")
    with told(package.repo_id):
        if not found.has_branch:
            api.create_branch(package.repo_id, branch=spec.revision, repo_type=package.repo_type, exist_ok=True)
        made = api.create_commit(
            package.repo_id,
            [*deletes, *adds],
            commit_message=package.message,
            repo_type=package.repo_type,
            revision=spec.revision,
            parent_commit=found.head,
        )
    return made.oid


def _tagged(api: HfApi, package: Package, spec: HubSpec, found: Found) -> Published:
    if package.tag not in found.tags:
        with told(package.repo_id):
            api.create_tag(
                package.repo_id, tag=package.tag, revision=found.head, repo_type=package.repo_type, exist_ok=True
            )
    folder = "datasets/" if package.repo_type == "dataset" else ""
    return Published(
        repo_id=package.repo_id,
        repo_type=package.repo_type,
        revision=spec.revision,
        tag=package.tag,
        commit=found.head,
        url=f"{api.endpoint}/{folder}{package.repo_id}",
    )
