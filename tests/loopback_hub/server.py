"""The Hub: its state, its plan of faults, its log, and two hosts that serve it."""

from __future__ import annotations

import re
import threading
import traceback
from collections.abc import Callable
from typing import Any

from loopback_hub import files, repos
from loopback_hub.faults import Fault, Plan
from loopback_hub.state import Account, Refusal, Repo, blob_of, new_repo
from loopback_hub.wire import Answer, Request, Server

Route = Callable[..., Answer]
ROUTES: list[tuple[str, str, re.Pattern[str], Route]] = [
    (host, method, re.compile(pattern), route)
    for host, table in (("hub", repos.ROUTES | files.ROUTES), ("storage", files.STORAGE_ROUTES))
    for (method, pattern), route in table.items()
]


class LoopbackHub:
    """See the package's docstring. `with LoopbackHub() as hub:` serves until the block ends."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.plan = Plan()
        self.requests: list[Request] = []
        self.unserved: list[Request] = []
        self.broken: list[str] = []
        """Tracebacks of this server's own mistakes."""
        self.repos: dict[tuple[str, str], Repo] = {}
        self.token, self.reader, self.stranger = "hf_loopbackWriter", "hf_loopbackReader", "hf_loopbackStranger"
        self.accounts = {
            self.token: Account("me", orgs=("team",)),
            self.reader: Account("me", write=False, orgs=("team",)),
            self.stranger: Account("stranger"),
        }
        self.multipart_above = 5_000_000
        """Bytes of a file above which LFS uploads come in parts of this size."""
        self.page_size = 1000
        self.parts: dict[str, dict[int, bytes]] = {}
        self.endpoint = self.storage = ""

    @property
    def faults(self) -> list[Fault]:
        return self.plan.faults

    def __enter__(self) -> LoopbackHub:
        self._servers = [Server(self, "hub"), Server(self, "storage")]
        self.endpoint, self.storage = (server.url for server in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fail(self, method: str, path: str, what: int | str, **options: Any) -> Fault:
        """Plans a fault; `path` is a pattern of fnmatch on the request's path. Options: see `faults.Fault`."""
        return self.plan.add(Fault(method, path, what, **options))

    def put(
        self, repo_id: str, contents: dict[str, bytes], *, kind: str = "model", branch: str = "main", **options: Any
    ) -> str:
        """Commits without the client; a new repository has `options` (private, gated). The commit's id."""
        with self.lock:
            repo = self.repos.get((kind, repo_id)) or new_repo(kind, repo_id, "me", **options)
            self.repos[kind, repo_id] = repo
            parent = repo.commit_of(branch if branch in repo.branches else "main")
            blobs = {path: blob_of(path, data) for path, data in contents.items()}
            repo.objects.update({blob.sha256: blob.data for blob in blobs.values() if blob.sha256})
            repo.branches.setdefault(branch, parent.oid)
            return repo.publish(branch, parent.files | blobs, "put", author="me").oid

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        return self.repos[kind, repo_id]

    def files(self, repo_id: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        commit = self.repo(repo_id, kind).commit_of(revision)
        return {path: blob.data for path, blob in commit.files.items()}

    def asked(self, method: str, pattern: str) -> list[Request]:
        """The requests so far whose path holds a match of the regular expression `pattern`."""
        return [request for request in self.requests if request.method == method and re.search(pattern, request.path)]

    def leaks(self) -> list[str]:
        """Where a token was seen that is not the Hub's Authorization header."""
        found = []
        for request in self.requests:
            elsewhere = {name: value for name, value in request.headers.items() if name != "authorization"}
            if request.host != "hub":
                elsewhere = request.headers
            said = f"{request.path} {request.query} {elsewhere} {request.body!r}"
            found += [f"{request.method} {request.host} {request.path}" for token in self.accounts if token in said]
        return found

    def answer(self, request: Request) -> Answer:
        """Does what the request asks. One at a time, so that each sees the state before or after another."""
        for host, method, pattern, route in ROUTES:
            matched = pattern.fullmatch(request.path) if (host, method) == (request.host, request.method) else None
            if matched:
                return self._do(route, request, matched.groups())
        self.unserved.append(request)
        return Answer.refusal(Refusal(404, "Sorry, we can't find the page you are looking for."))

    def _do(self, route: Route, request: Request, groups: tuple[str, ...]) -> Answer:
        try:
            with self.lock:
                return route(self, request, *groups)
        except Refusal as refusal:
            return Answer.refusal(refusal)
        except Exception:
            self.broken.append(traceback.format_exc())
            return Answer.refusal(Refusal(500, "the loopback Hub is broken"))

    def account(self, request: Request) -> Account | None:
        """Who asks. Raises Refusal for a token that is nobody's."""
        if request.token is None:
            return None
        if request.token not in self.accounts:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.accounts[request.token]

    def open(self, request: Request, kind: str, repo_id: str, *, write: bool = False, read: bool = False) -> Repo:
        """A repository that the asker may see; `write` and `read` also ask for the right to change it and to have its
        files. Another's private repository looks like none, as on the Hub."""
        account, repo = self.account(request), self.repos.get((kind, repo_id))
        owns = account is not None and account.owns(repo_id)
        if repo is None or (repo.private and not owns):
            refused = (404, "Repository not found") if account else (401, "Invalid username or password.")
            raise Refusal(*refused, "RepoNotFound")
        if read and repo.gated and not owns and (account is None or account.name not in repo.granted):
            message = f"Access to {kind} {repo_id} is restricted. You must have access to it and be authenticated."
            raise Refusal(403 if account else 401, message, "GatedRepo")
        if write:
            _may_write(account, repo_id)
        return repo


def _may_write(account: Account | None, repo_id: str) -> None:
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    if not account.write or not account.owns(repo_id):
        raise Refusal(403, "You don't have the required permissions to write here: your token must have the role write")
