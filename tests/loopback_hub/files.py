"""Bytes in and out: downloads, and uploads by Git LFS in one part or many, through a storage host of its own."""

from __future__ import annotations

import hashlib
import re
from math import ceil
from typing import Any
from urllib.parse import unquote

from loopback_hub.state import Blob, Refusal
from loopback_hub.wire import Answer, Request

FILE = r"/(datasets/|spaces/)?([^/]+/[^/]+)/(?:resolve|raw)/([^/]+)/(.+)"
GIT = r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs"
KIND = {None: "model", "datasets/": "dataset", "spaces/": "space"}
SIGNED = "signed"
"""What storage asks for in place of a token; the real one is a signature."""


def download(hub: Any, request: Request, kinds: str | None, repo_id: str, revision: str, path: str) -> Answer:
    """A small file itself; for one in LFS the way to storage, with what the client needs to know of it."""
    repo = hub.open(request, KIND[kinds], repo_id, read=True)
    commit, blob = repo.blob_at(unquote(revision), unquote(path))
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
    if blob.sha256 is None:
        return ranged(request, blob.data, headers)
    headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
    location = f"{hub.storage}/storage/{repo.kind}/{repo.id}/{blob.sha256}?X-Signature={SIGNED}"
    return Answer(302, b"", headers | {"Location": location})


def ranged(request: Request, data: bytes, headers: dict[str, str]) -> Answer:
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if not asked or asked.groups() == ("", ""):
        return Answer(200, data, headers | {"Content-Length": str(len(data))})
    first, last = asked.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last), len(data) - 1) if first and last else len(data) - 1
    if start > end:
        return Answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    piece = data[start : end + 1]
    found = {"Content-Range": f"bytes {start}-{end}/{len(data)}", "Content-Length": str(len(piece))}
    return Answer(206, piece, headers | found)


def batch(hub: Any, request: Request, kinds: str | None, repo_id: str) -> Answer:
    """Where each object goes; none for what is there already."""
    repo = hub.open(request, KIND[kinds], repo_id, write=True)
    below = f"{repo.kind}/{repo.id}"

    def action(item: dict[str, Any]) -> dict[str, Any]:
        oid, size = item["oid"], item["size"]
        if oid in repo.objects:
            return {"oid": oid, "size": size}
        upload: dict[str, Any] = {"href": f"{hub.storage}/storage/{below}/{oid}?X-Signature={SIGNED}"}
        if size > hub.multipart_above:
            upload = _in_parts(hub, below, oid, size)
        verify = {"href": f"{hub.endpoint}/{kinds or ''}{repo.id}.git/info/lfs/verify"}
        return {"oid": oid, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}

    objects = [action(item) for item in request.json()["objects"]]
    many = any("chunk_size" in item.get("actions", {}).get("upload", {}).get("header", {}) for item in objects)
    return Answer.json({"transfer": "multipart" if many else "basic", "objects": objects})


def _in_parts(hub: Any, below: str, oid: str, size: int) -> dict[str, Any]:
    count = ceil(size / hub.multipart_above)
    urls = {
        f"{number:05}": f"{hub.storage}/storage/{below}/{oid}/{number}?X-Signature={SIGNED}"
        for number in range(1, count + 1)
    }
    href = f"{hub.endpoint}/api/complete_multipart/{below}/{oid}?X-Signature={SIGNED}"
    return {"href": href, "header": {"chunk_size": str(hub.multipart_above), **urls}}


def complete(hub: Any, request: Request, kind: str, repo_id: str, oid: str) -> Answer:
    """Puts the parts together, in the order and with the ETags that the client tells."""
    _signed(request)
    have = hub.parts.get(f"{kind}/{repo_id}/{oid}", {})
    told = [(part["partNumber"], part["etag"].strip('"')) for part in request.json()["parts"]]
    if any(number not in have or hashlib.md5(have[number]).hexdigest() != etag for number, etag in told):
        raise Refusal(400, "InvalidPart: one or more of the parts could not be found")
    _keep(hub, kind, repo_id, oid, b"".join(have[number] for number, _ in told))
    return Answer.json({})


def verify(hub: Any, request: Request, kinds: str | None, repo_id: str) -> Answer:
    repo, asked = hub.open(request, KIND[kinds], repo_id, write=True), request.json()
    if len(repo.objects.get(asked["oid"], b"")) != asked["size"]:
        raise Refusal(404, "Object not found")
    return Answer.json({"message": "ok"})


def store(hub: Any, request: Request, kind: str, repo_id: str, oid: str) -> Answer:
    _signed(request)
    _keep(hub, kind, repo_id, oid, request.body)
    return Answer(200, b"", {"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


def store_part(hub: Any, request: Request, kind: str, repo_id: str, oid: str, number: str) -> Answer:
    _signed(request)
    hub.parts.setdefault(f"{kind}/{repo_id}/{oid}", {})[int(number)] = request.body
    return Answer(200, b"", {"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


def fetch(hub: Any, request: Request, kind: str, repo_id: str, oid: str) -> Answer:
    _signed(request)
    repo = hub.repos.get((kind, repo_id))
    if repo is None or oid not in repo.objects:
        raise Refusal(404, "NoSuchKey")
    return ranged(request, repo.objects[oid], {"ETag": f'"{Blob(b"", oid).etag}"'})


def _keep(hub: Any, kind: str, repo_id: str, oid: str, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != oid:
        raise Refusal(400, "BadDigest: the content does not have the announced sha256")
    hub.repos[kind, repo_id].objects[oid] = data


def _signed(request: Request) -> None:
    if "authorization" in request.headers:
        raise Refusal(400, "InvalidArgument: only one auth mechanism allowed")
    if request.query.get("X-Signature") != SIGNED:
        raise Refusal(403, "AccessDenied: the request is not signed")


OBJECT = r"/storage/(model|dataset|space)/([^/]+/[^/]+)/([0-9a-f]{64})"
ROUTES = {
    ("GET", FILE): download,
    ("HEAD", FILE): download,
    ("POST", f"{GIT}/objects/batch"): batch,
    ("POST", f"{GIT}/verify"): verify,
    ("POST", r"/api/complete_multipart/(model|dataset|space)/([^/]+/[^/]+)/([0-9a-f]{64})"): complete,
}
STORAGE_ROUTES = {
    ("PUT", OBJECT): store,
    ("PUT", rf"{OBJECT}/(\d+)"): store_part,
    ("GET", OBJECT): fetch,
    ("HEAD", OBJECT): fetch,
}
