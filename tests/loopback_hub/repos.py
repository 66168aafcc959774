"""What the Hub answers about repositories: accounts, repositories, trees, commits, branches, tags."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import unquote, urlencode

import yaml

from loopback_hub.state import KINDS, Blob, Commit, Refusal, Repo, new_repo, wants_lfs
from loopback_hub.wire import Answer, Request

REPO = r"/api/(models|datasets|spaces)/([^/]+/[^/]+)"


def who_am_i(hub: Any, request: Request) -> Answer:
    account = hub.account(request)
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    access = {"displayName": "loopback", "role": "write" if account.write else "read"}
    return Answer.json(
        {
            "type": "user",
            "id": account.name,
            "name": account.name,
            "fullname": account.name,
            "orgs": [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.orgs],
            "auth": {"type": "access_token", "accessToken": access},
        }
    )


def validate_card(hub: Any, request: Request) -> Answer:
    try:
        metadata_of(request.json()["content"].encode())
    except yaml.YAMLError as error:
        return Answer.json({"errors": [{"message": f"YAML metadata: {error}"}], "warnings": []}, 400)
    return Answer.json({"errors": [], "warnings": []})


def metadata_of(card: bytes) -> dict[str, Any]:
    """What stands between the first two lines of `---`."""
    parts = card.decode().split("---\n", 2)
    found = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return found if isinstance(found, dict) else {}


def create_repo(hub: Any, request: Request) -> Answer:
    asked, account = request.json(), hub.account(request)
    kind = asked.get("type") or "model"
    repo_id = f"{asked.get('organization') or (account.name if account else '')}/{asked['name']}"
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    if not account.write or not account.owns(repo_id):
        raise Refusal(
            403, f'You don\'t have the rights to create a {kind} under the namespace "{repo_id.split("/")[0]}"'
        )
    url = hub.endpoint + ("/" if kind == "model" else f"/{kind}s/") + repo_id
    if (kind, repo_id) in hub.repos:
        return Answer.json({"error": f"You already created this {kind} repo", "url": url}, 409)
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    hub.repos[kind, repo_id] = new_repo(kind, repo_id, account.name, private=private)
    return Answer.json({"url": url, "name": repo_id, "id": repo_id, "private": private})


def delete_repo(hub: Any, request: Request) -> Answer:
    asked = request.json()
    kind = asked.get("type") or "model"
    account = hub.account(request)
    repo_id = f"{asked.get('organization') or (account.name if account else '')}/{asked['name']}"
    hub.open(request, kind, repo_id, write=True)
    del hub.repos[kind, repo_id]
    return Answer.json({})


def change_settings(hub: Any, request: Request, kinds: str, repo_id: str) -> Answer:
    repo, asked = hub.open(request, KINDS[kinds], repo_id, write=True), request.json()
    repo.private = asked.get("visibility", "private" if repo.private else "public") == "private"
    repo.private = asked.get("private", repo.private)
    repo.gated = asked.get("gated", repo.gated)
    return Answer.json({"private": repo.private, "gated": repo.gated})


def info(hub: Any, request: Request, kinds: str, repo_id: str, revision: str = "main") -> Answer:
    repo = hub.open(request, KINDS[kinds], repo_id)
    commit = repo.commit_of(unquote(revision))
    card = metadata_of(commit.files["README.md"].data) if "README.md" in commit.files else {}
    first = repo.history("main")[-1] if "main" in repo.branches else commit
    return Answer.json(
        {
            "_id": repo.id,
            "id": repo.id,
            "modelId": repo.id,
            "author": repo.id.split("/")[0],
            "sha": commit.oid,
            "lastModified": commit.date,
            "createdAt": first.date,
            "private": repo.private,
            "gated": repo.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": list(card.get("tags") or []),
            "cardData": card,
            "library_name": card.get("library_name"),
            "pipeline_tag": card.get("pipeline_tag"),
            "siblings": [_sibling(path, blob, "blobs" in request.query) for path, blob in sorted(commit.files.items())],
        }
    )


def _sibling(path: str, blob: Blob, sized: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"rfilename": path}
    return found | {"size": len(blob.data), "blobId": blob.oid, "lfs": blob.lfs()} if sized else found


def entry(path: str, blob: Blob) -> dict[str, Any]:
    found = {"type": "file", "oid": blob.oid, "size": len(blob.data), "path": path}
    return found | {"lfs": blob.lfs()} if blob.sha256 else found


def folders_of(commit: Commit) -> set[str]:
    parts = [path.split("/")[:-1] for path in commit.files]
    return {"/".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1)}


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}


def tree(hub: Any, request: Request, kinds: str, repo_id: str, revision: str, _: str, inside: str) -> Answer:
    commit = hub.open(request, KINDS[kinds], repo_id).commit_of(unquote(revision))
    folder = unquote(inside or "").strip("/")
    if folder and folder not in folders_of(commit):
        raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound", X_Repo_Commit=commit.oid)
    start = f"{folder}/" if folder else ""
    everything = [_folder(path) for path in folders_of(commit)] + [entry(*item) for item in commit.files.items()]
    below = sorted((item for item in everything if item["path"].startswith(start)), key=lambda item: item["path"])
    if request.query.get("recursive", "false").lower() not in ("true", "1"):
        below = [item for item in below if "/" not in item["path"][len(start) :]]
    return _page(hub, request, below)


def _page(hub: Any, request: Request, items: list[Any]) -> Answer:
    at = int(request.query.get("cursor", 0))
    after = at + hub.page_size
    query = urlencode(request.query | {"cursor": str(after)})
    link = {"Link": f'<{hub.endpoint}{request.path}?{query}>; rel="next"'} if after < len(items) else {}
    return Answer.json(items[at:after], **link)


def paths_info(hub: Any, request: Request, kinds: str, repo_id: str, revision: str) -> Answer:
    commit = hub.open(request, KINDS[kinds], repo_id).commit_of(unquote(revision))
    asked = request.form().get("paths", [])
    folders = folders_of(commit)
    found = [entry(path, commit.files[path]) for path in asked if path in commit.files]
    return Answer.json(found + [_folder(path) for path in asked if path in folders])


def refs(hub: Any, request: Request, kinds: str, repo_id: str) -> Answer:
    repo = hub.open(request, KINDS[kinds], repo_id)

    def listed(names: dict[str, str], below: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{below}/{name}", "targetCommit": oid} for name, oid in names.items()]

    found = {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []}
    return Answer.json(found | {"pullRequests": []})


def commits(hub: Any, request: Request, kinds: str, repo_id: str, revision: str) -> Answer:
    history = hub.open(request, KINDS[kinds], repo_id).history(unquote(revision))
    said = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "date": commit.date,
            "authors": [{"user": commit.author}],
        }
        for commit in history
    ]
    return _page(hub, request, said)


def create_branch(hub: Any, request: Request, kinds: str, repo_id: str, branch: str) -> Answer:
    repo, name = hub.open(request, KINDS[kinds], repo_id, write=True), unquote(branch)
    if name in repo.branches:
        raise Refusal(409, f"Reference {name} already exists")
    repo.branches[name] = repo.commit_of(request.json().get("startingPoint", "main")).oid
    return Answer.json({})


def delete_branch(hub: Any, request: Request, kinds: str, repo_id: str, branch: str) -> Answer:
    repo, name = hub.open(request, KINDS[kinds], repo_id, write=True), unquote(branch)
    if name == "main":
        raise Refusal(403, "The main branch cannot be deleted")
    if repo.branches.pop(name, None) is None:
        raise Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return Answer.json({})


def create_tag(hub: Any, request: Request, kinds: str, repo_id: str, revision: str) -> Answer:
    repo, name = hub.open(request, KINDS[kinds], repo_id, write=True), request.json()["tag"]
    if name in repo.tags:
        raise Refusal(409, f"Tag {name} already exists")
    repo.tags[name] = repo.commit_of(unquote(revision)).oid
    return Answer.json({})


def delete_tag(hub: Any, request: Request, kinds: str, repo_id: str, tag: str) -> Answer:
    repo = hub.open(request, KINDS[kinds], repo_id, write=True)
    if repo.tags.pop(unquote(tag), None) is None:
        raise Refusal(404, f"Invalid rev id: {unquote(tag)}", "RevisionNotFound")
    return Answer.json({})


def auth_check(hub: Any, request: Request, kinds: str, repo_id: str, write: str = "") -> Answer:
    hub.open(request, KINDS[kinds], repo_id, read=True, write=bool(write))
    return Answer.json({})


def preupload(hub: Any, request: Request, kinds: str, repo_id: str, revision: str) -> Answer:
    commit = hub.open(request, KINDS[kinds], repo_id, write=True).commit_of(unquote(revision))

    def mode(file: dict[str, Any]) -> dict[str, Any]:
        in_lfs = wants_lfs(file["path"], file["size"], base64.b64decode(file["sample"]))
        there = commit.files.get(file["path"])
        said = {"path": file["path"], "uploadMode": "lfs" if in_lfs else "regular", "shouldIgnore": False}
        return said | {"oid": there.etag} if there else said

    return Answer.json({"files": [mode(file) for file in request.json()["files"]]})


def make_commit(hub: Any, request: Request, kinds: str, repo_id: str, revision: str) -> Answer:
    if "create_pr" in request.query:
        raise Refusal(403, "Pull requests are not served here")
    repo, branch = hub.open(request, KINDS[kinds], repo_id, write=True), unquote(revision)
    if branch not in repo.branches:
        repo.commit_of(branch)
        raise Refusal(400, f"{branch} is no branch: commits need one")
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    head = repo.branches[branch]
    if header.get("parentCommit") not in (None, head):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    blobs = dict(repo.commits[head].files)
    for line in lines:
        _apply(repo, blobs, line["key"], line["value"])
    author = hub.account(request).name
    commit = repo.publish(branch, blobs, header["summary"], header.get("description", ""), author)
    below = "" if repo.kind == "model" else f"{repo.kind}s/"
    url = f"{hub.endpoint}/{below}{repo.id}/commit/{commit.oid}"
    return Answer.json({"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})


def _apply(repo: Repo, blobs: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
    """One line of a commit, on the copy that becomes the next tree."""
    if key == "file":
        blobs[value["path"]] = Blob(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        data = repo.objects.get(value["oid"])
        if data is None or len(data) != value.get("size", len(data)):
            raise Refusal(404, f'LFS pointer of "{value["path"]}" pointed to a file that does not exist')
        blobs[value["path"]] = Blob(data, value["oid"])
    elif key in ("deletedFile", "deletedFolder"):
        path = value["path"].rstrip("/")
        gone = [name for name in blobs if name == path or (key == "deletedFolder" and name.startswith(f"{path}/"))]
        if not gone:
            raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        for name in gone:
            del blobs[name]
    elif key != "header":
        raise Refusal(400, f"no such line in a commit: {key}")


ROUTES = {
    ("GET", "/api/whoami-v2"): who_am_i,
    ("POST", "/api/validate-yaml"): validate_card,
    ("POST", "/api/repos/create"): create_repo,
    ("DELETE", "/api/repos/delete"): delete_repo,
    ("PUT", f"{REPO}/settings"): change_settings,
    ("GET", REPO): info,
    ("GET", f"{REPO}/revision/([^/]+)"): info,
    ("GET", f"{REPO}/tree/([^/]+)(/(.*))?"): tree,
    ("POST", f"{REPO}/paths-info/([^/]+)"): paths_info,
    ("GET", f"{REPO}/refs"): refs,
    ("GET", f"{REPO}/commits/([^/]+)"): commits,
    ("POST", f"{REPO}/branch/([^/]+)"): create_branch,
    ("DELETE", f"{REPO}/branch/([^/]+)"): delete_branch,
    ("POST", f"{REPO}/tag/([^/]+)"): create_tag,
    ("DELETE", f"{REPO}/tag/([^/]+)"): delete_tag,
    ("GET", f"{REPO}/auth-check"): auth_check,
    ("GET", f"{REPO}/auth-check/(write)"): auth_check,
    ("POST", f"{REPO}/preupload/([^/]+)"): preupload,
    ("POST", f"{REPO}/commit/([^/]+)"): make_commit,
}
