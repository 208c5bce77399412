"""A hub on this machine: the part of the Hugging Face Hub's HTTP API that huggingface_hub uses.

Repositories with branches, files in Git LFS (redirected to storage, with ranges) and plain ones,
the hub's own error codes, and faults on demand: connections that are cut, wrong bytes, silence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import Generator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

_LFS_BYTES = 1000
_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_STORAGE = re.compile(r"/storage/([0-9a-f]{64})")


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    range: str
    authorization: str


@dataclasses.dataclass
class Hub:
    """What the hub holds, what goes wrong, and what was asked.

    Attributes:
        branches: repository to branch to commit.
        trees: commit to path to content.
        cut_after: content length after which the next connections are cut, one each.
        wrong: contents in place of the true ones, by path's digest.
        gated: repositories that need a token.
        refusals: status and headers of the next answers, one each.
        moved: repositories that were renamed, to their new names.
        ignores_ranges: storage sends whole files, whatever part is asked for.
        asked: every request, in order.
        goes_silent: with the next connection that is cut.
        is_silent: while it is set no content comes; `released` lets go those that wait.
        endpoint: of the hub.
        storage: of the content in LFS: another host, as with the hub's own.
    """

    branches: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    trees: dict[str, Mapping[str, bytes]] = dataclasses.field(default_factory=dict)
    cut_after: list[int] = dataclasses.field(default_factory=list)
    wrong: dict[str, bytes] = dataclasses.field(default_factory=dict)
    gated: set[str] = dataclasses.field(default_factory=set)
    refusals: list[tuple[int, Mapping[str, str]]] = dataclasses.field(default_factory=list)
    moved: dict[str, str] = dataclasses.field(default_factory=dict)
    ignores_ranges: bool = False
    asked: list[Asked] = dataclasses.field(default_factory=list)
    is_silent: bool = False
    goes_silent: bool = False
    released: threading.Event = dataclasses.field(default_factory=threading.Event)
    endpoint: str = ""
    storage: str = ""

    def push(self, repository: str, files: Mapping[str, bytes], *, branch: str = "main") -> str:
        """A new commit; returns its id."""
        made = json.dumps({path: hashlib.sha1(data).hexdigest() for path, data in files.items()})
        commit = hashlib.sha1(made.encode()).hexdigest()
        self.branches.setdefault(repository, {})[branch] = commit
        self.trees[commit] = dict(files)
        return commit

    def commit(self, repository: str, revision: str) -> str | None:
        """What a branch or a commit id means; None where it is not there."""
        branches = self.branches[repository]
        return revision if revision in branches.values() else branches.get(revision)

    def stored(self, digest: str) -> bytes:
        """Content by its digest."""
        if digest in self.wrong:
            return self.wrong[digest]
        contents = [data for tree in self.trees.values() for data in tree.values()]
        return next(data for data in contents if hashlib.sha256(data).hexdigest() == digest)

    def downloads(self) -> list[str]:
        """The ranges of all requests for content in storage; empty for a whole file."""
        return [one.range for one in self.asked if one.method == "GET" and "/storage/" in one.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *args: Any) -> None: ...

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        authorization = headers.get("Authorization", "")
        asked = Asked(self.command, self.path, headers.get("Range", ""), authorization)
        self.hub.asked.append(asked)
        if self.hub.refusals:
            status, more = self.hub.refusals.pop(0)
            self._send(status, more, b"<html>no</html>")
        elif old := next((one for one in self.hub.moved if f"/{one}/" in f"{path}/"), None):
            self._send(307, {"Location": self.path.replace(old, self.hub.moved[old])}, b"")
        elif found := _STORAGE.fullmatch(path):
            self._content(self.hub.stored(found[1]))
        elif found := _API.fullmatch(path):
            self._repository(found[1], found[2] or "main")
        elif found := _FILE.fullmatch(path):
            self._file(found[1], found[2], found[3])
        else:
            self._error(404, "", "no such route")

    def _repository(self, repository: str, revision: str) -> None:
        commit = self._commit(repository, revision)
        if commit is None:
            return
        tree = self.hub.trees[commit]
        blobs = "blobs=True" in self.path or "blobs=true" in self.path
        siblings = [_sibling(path, data, blobs=blobs) for path, data in tree.items()]
        answer = {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _file(self, repository: str, revision: str, path: str) -> None:
        commit = self._commit(repository, revision)
        if commit is None:
            return
        data = self.hub.trees[commit].get(path)
        if data is None:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        digest, etag = hashlib.sha256(data).hexdigest(), _git_id(data)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        if not _is_large(data):
            self._content(data, headers)
            return
        headers |= {
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{self.hub.storage}/storage/{digest}",
        }
        self._send(302, headers, b"")

    def _commit(self, repository: str, revision: str) -> str | None:
        if repository not in self.hub.branches:
            # As the hub does, which does not tell strangers what is private and what is not there.
            self._error(401, "RepoNotFound", "Repository not found")
            return None
        if repository in self.hub.gated and not self.headers.get("Authorization"):
            self._error(401, "GatedRepo", "Access to this model is restricted.")
            return None
        commit = self.hub.commit(repository, revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _content(self, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Content, whole or from the asked byte on; cut short where that is wanted."""
        if self.hub.is_silent:
            self.hub.released.wait(60)
        status, extra, start = 200, {"Accept-Ranges": "bytes"}, 0
        asked = "" if self.hub.ignores_ranges else self.headers.get("Range", "")
        if found := re.fullmatch(r"bytes=(\d+)-", asked):
            start = int(found[1])
            if start >= len(data):
                self._error(416, "", "Requested range not satisfiable")
                return
            status = 206
            extra["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(status, {**(headers or {}), **extra}, data[start:], may_cut=True)

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, headers, json.dumps({"error": message}).encode())

    def _send(
        self, status: int, headers: Mapping[str, str], body: bytes, *, may_cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if may_cut and self.hub.cut_after and len(body) > self.hub.cut_after[0]:
            self.hub.is_silent = self.hub.goes_silent
            self.wfile.write(body[: self.hub.cut_after.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(body)


@contextlib.contextmanager
def serving_hub() -> Generator[Hub]:
    """A hub on a port of its own."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    hub.storage = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _is_large(data: bytes) -> bool:
    return len(data) >= _LFS_BYTES


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sibling(path: str, data: bytes, *, blobs: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"rfilename": path}
    if blobs:
        made |= {"size": len(data), "blobId": _git_id(data)}
        if _is_large(data):
            digest = hashlib.sha256(data).hexdigest()
            made["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
    return made
