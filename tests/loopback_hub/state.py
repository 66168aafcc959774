"""What a Hub holds: accounts, repositories, commits. Every change is one assignment under the Hub's lock."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
IN_LFS = (".safetensors", ".bin", ".parquet", ".arrow", ".gz", ".zip", ".gguf", ".pt", ".pth", ".model", ".npz")
LFS_ABOVE = 10_000_000
"""Bytes of a text file above which the Hub keeps it in LFS."""


class Refusal(Exception):
    """An answer other than success; `code` is the Hub's own name for it, which the client reads."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class Account:
    name: str
    write: bool = True
    orgs: tuple[str, ...] = ()

    def owns(self, repo_id: str) -> bool:
        return repo_id.split("/")[0] in (self.name, *self.orgs)


@dataclass(frozen=True)
class Blob:
    data: bytes
    sha256: str | None = None
    """Set for a file in LFS."""

    @property
    def oid(self) -> str:
        data = self.data if self.sha256 is None else self.pointer()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    def lfs(self) -> dict[str, Any] | None:
        if self.sha256 is None:
            return None
        return {"oid": self.sha256, "sha256": self.sha256, "size": len(self.data), "pointerSize": len(self.pointer())}


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    files: dict[str, Blob]
    date: str


_COUNT = itertools.count()


def new_commit(parent: Commit | None, files: dict[str, Blob], title: str, message: str, author: str) -> Commit:
    listing = "\n".join(f"{path} {blob.oid}" for path, blob in sorted(files.items()))
    said = f"{parent.oid if parent else ''}\n{title}\n{message}\n{next(_COUNT)}\n{listing}"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    oid = hashlib.sha1(said.encode()).hexdigest()
    return Commit(oid, parent.oid if parent else None, title, message, author, dict(files), now)


@dataclass
class Repo:
    kind: str
    id: str
    private: bool = False
    gated: str | bool = False
    granted: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Uploaded whole, by sha256; no commit need hold them."""

    def commit_of(self, revision: str) -> Commit:
        """Raises Refusal for no such branch, tag or commit."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        oid = self.branches.get(name) or self.tags.get(name) or revision
        if oid not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def blob_at(self, revision: str, path: str) -> tuple[Commit, Blob]:
        """Raises Refusal for no such revision or file."""
        commit = self.commit_of(revision)
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.oid)
        return commit, commit.files[path]

    def history(self, revision: str) -> list[Commit]:
        found = [self.commit_of(revision)]
        while found[-1].parent:
            found.append(self.commits[found[-1].parent])
        return found

    def publish(self, branch: str, files: dict[str, Blob], title: str, message: str = "", author: str = "") -> Commit:
        """All of `files` as the branch's next commit."""
        parent = self.commits[self.branches[branch]] if branch in self.branches else None
        commit = new_commit(parent, files, title, message, author)
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit


def new_repo(kind: str, repo_id: str, author: str, **options: Any) -> Repo:
    """With the first commit that the Hub itself makes."""
    repo = Repo(kind, repo_id, **options)
    rules = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in IN_LFS)
    repo.publish("main", {".gitattributes": Blob(rules.encode())}, "initial commit", author=author)
    return repo


def wants_lfs(path: str, size: int, sample: bytes) -> bool:
    """As the Hub decides: by the suffixes of .gitattributes, by size, or for what is no text."""
    return path.endswith(IN_LFS) or size > LFS_ABOVE or b"\0" in sample


def blob_of(path: str, data: bytes) -> Blob:
    in_lfs = wants_lfs(path, len(data), data[:512]) and data
    return Blob(data, hashlib.sha256(data).hexdigest() if in_lfs else None)
