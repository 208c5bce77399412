"""A Kubernetes API server of this machine's own, as far as the registry's store uses one.

A real HTTP server that keeps Leases, ConfigMaps and Secrets with their versions. It answers as the
real one does: 409 for another version, 401 for another token, 403 by the rules of a Role, 422 for an
object that is too large or has what no such object may have. And it fails on demand: it refuses, it
holds its answers back, it cuts connections before or after it has done what was asked.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import dataclasses
import json
import re
import ssl
import threading
import uuid
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

_PATH = re.compile(r"(?:/api/v1|/apis/([^/]+)/v1)/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?")
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "DELETE": "delete"}
_KINDS = {"leases": "Lease", "configmaps": "ConfigMap", "secrets": "Secret"}
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_MOST_DATA, _MOST_BODY = 1 << 20, 3 << 20


class Asked(NamedTuple):
    """One request that was answered."""

    verb: str
    resource: str
    name: str
    status: int


@dataclasses.dataclass
class Fault:
    """What happens to the next requests.

    Attributes:
        times: to how many.
        status: with what they are refused; 0: they are cut off.
        retry_after: what the refusal says.
        is_done: what is cut off was done before.
        verb: only to those of this verb; empty: to all.
    """

    times: int = 1
    status: int = 0
    retry_after: str = ""
    is_done: bool = False
    verb: str = ""


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclasses.dataclass
class KubernetesApi:
    """What the server keeps, what it asks for, and what goes wrong.

    Attributes:
        url: where it is.
        token: that callers have to show; empty: none.
        rules: of a Role, by which they are let; None: they may do everything.
        objects: by resource and name.
        faults: in their order.
        asked: every request, in order.
        is_away: while it is set, connections are cut off.
        open: while it is not set, nothing is answered.
    """

    url: str = ""
    token: str = ""
    rules: list[dict[str, Any]] | None = None
    objects: dict[tuple[str, str], dict[str, Any]] = dataclasses.field(default_factory=dict)
    faults: list[Fault] = dataclasses.field(default_factory=list)
    asked: list[Asked] = dataclasses.field(default_factory=list)
    is_away: bool = False
    open: threading.Event = dataclasses.field(default_factory=threading.Event)
    _version: int = 100
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def count(self, verb: str, resource: str = "") -> int:
        """How many requests of a verb were answered well."""
        return sum(
            one.verb == verb and one.resource.startswith(resource) and one.status < 300
            for one in self.asked
        )

    def fault(self, verb: str) -> Fault | None:
        """What happens to a request, where anything does."""
        with self._lock:
            for fault in self.faults:
                if fault.times and fault.verb in {"", verb}:
                    fault.times -= 1
                    return fault
        return None

    def do(self, verb: str, path: str, token: str, content: bytes) -> tuple[int, dict[str, Any]]:
        """Status and body of an answer."""
        found = _PATH.fullmatch(path)
        resource, name = (found[3], found[4] or "") if found else ("", "")
        try:
            with self._lock:
                self._admit(verb, token, found, len(content))
                body = json.loads(content) if content else {}
                status, answer = getattr(self, f"_{verb}")(resource, name, body)
        except _RefusedError as error:
            status = error.status
            answer = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": error.reason,
                "message": str(error),
                "code": status,
            }
        self.asked.append(Asked(verb, resource, name, status))
        return status, answer

    def _admit(self, verb: str, token: str, found: re.Match[str] | None, size: int) -> None:
        if self.token and token != f"Bearer {self.token}":
            raise _RefusedError(401, "Unauthorized", "Unauthorized")
        if found is None or found[3] not in _KINDS:
            raise _RefusedError(404, "NotFound", "the server could not find the resource")
        group, namespace, resource, name = found[1] or "", found[2], found[3], found[4] or ""
        if self.rules is not None and not any(
            _lets(rule, verb, group, resource, name) for rule in self.rules
        ):
            told = f'{resource} "{name}" is forbidden: User "system:serviceaccount:{namespace}:x" '
            told += f'cannot {verb} resource "{resource}" in the namespace "{namespace}"'
            raise _RefusedError(403, "Forbidden", told)
        if size > _MOST_BODY:
            raise _RefusedError(413, "RequestEntityTooLarge", "limit is 3145728")

    def _get(self, resource: str, name: str, _: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, self._found(resource, name)

    def _create(self, resource: str, _: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = body["metadata"]["name"]
        if body["metadata"].get("resourceVersion"):
            told = "resourceVersion should not be set on objects to be created"
            raise _RefusedError(400, "BadRequest", told)
        if (resource, name) in self.objects:
            raise _RefusedError(409, "AlreadyExists", f'{resource} "{name}" already exists')
        body["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z"}
        return 201, self._kept(resource, name, body)

    def _update(self, resource: str, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        known = self._found(resource, name)
        told, is_now = body["metadata"], known["metadata"]
        if told["name"] != name:
            raise _RefusedError(400, "BadRequest", "the name of the object does not match the URL")
        if not told.get("resourceVersion"):
            raise _RefusedError(422, "Invalid", "metadata.resourceVersion: must be specified")
        if told["resourceVersion"] != is_now["resourceVersion"] or told["uid"] != is_now["uid"]:
            message = f'Operation cannot be fulfilled on {resource} "{name}": the object has been '
            raise _RefusedError(409, "Conflict", message + "modified")
        fields = dict.fromkeys(("managedFields", "resourceVersion"))
        old, new = ({**one, "metadata": one["metadata"] | fields} for one in (known, body))
        return 200, known if old == new else self._kept(resource, name, body)

    def _delete(self, resource: str, name: str, _: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self._found(resource, name)
        del self.objects[resource, name]
        return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _found(self, resource: str, name: str) -> dict[str, Any]:
        if (resource, name) not in self.objects:
            raise _RefusedError(404, "NotFound", f'{resource} "{name}" not found')
        return copy.deepcopy(self.objects[resource, name])

    def _kept(self, resource: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("kind") != _KINDS[resource]:
            raise _RefusedError(400, "BadRequest", "the object is of another kind")
        _check(resource, body)
        self._version += 1
        managed = [{"manager": "cortex", "operation": "Update"}]
        body["metadata"] |= {"resourceVersion": str(self._version), "managedFields": managed}
        self.objects[resource, name] = body
        return copy.deepcopy(body)


def _lets(rule: dict[str, Any], verb: str, group: str, resource: str, name: str) -> bool:
    names = rule.get("resourceNames")
    # as the real one: what is made has no name yet
    is_named = not names or (verb != "create" and name in names)
    is_meant = group in rule["apiGroups"] and resource in rule["resources"]
    return is_named and is_meant and verb in rule["verbs"]


def _check(resource: str, body: dict[str, Any]) -> None:
    if resource == "leases":
        spec = body.get("spec") or {}
        times = (spec.get("acquireTime"), spec.get("renewTime"))
        if not all(time is None or _MICRO_TIME.fullmatch(time) for time in times):
            raise _RefusedError(400, "BadRequest", "a time is no MicroTime")
        if spec.get("leaseDurationSeconds", 1) <= 0 or spec.get("leaseTransitions", 0) < 0:
            raise _RefusedError(422, "Invalid", "spec.leaseDurationSeconds: must be greater than 0")
        return
    plain, coded = dict(body.get("data") or {}), dict(body.get("binaryData") or {})
    if resource == "secrets":
        plain, coded = {}, plain
    sizes = [len(text.encode()) for text in plain.values()]
    sizes += [len(base64.b64decode(text, validate=True)) for text in coded.values()]
    if not all(_KEY.fullmatch(key) for key in (*plain, *coded)):
        raise _RefusedError(422, "Invalid", "a valid config key must consist of alphanumerics")
    if sum(sizes) > _MOST_DATA:
        raise _RefusedError(422, "Invalid", "Too long: may not be more than 1048576 bytes")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: KubernetesApi

    def _answer(self) -> None:
        api, verb = self.api, _VERBS[self.command]
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        api.open.wait()
        fault = None if api.is_away else api.fault(verb)
        if api.is_away or (fault is not None and not fault.status and not fault.is_done):
            self._cut()
            return
        if fault is not None and fault.status:
            headers = {"retry-after": fault.retry_after} if fault.retry_after else {}
            self._send(fault.status, {"kind": "Status", "message": "as it was told"}, headers)
            return
        token = self.headers.get("authorization") or ""
        answer = api.do(verb, self.path, token, content)
        if fault is not None:
            self._cut()
            return
        self._send(*answer)

    def _cut(self) -> None:
        self.close_connection = True

    def _send(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the library's names

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients that leave are part of the tests."""


@contextlib.contextmanager
def kubernetes_api(tls: ssl.SSLContext | None = None) -> Generator[KubernetesApi]:
    """A server on loopback while the context is open; with HTTPS where it is given a certificate."""
    api = KubernetesApi()
    api.open.set()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    api.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.is_away = True
        api.open.set()
        server.shutdown()
        server.server_close()
        thread.join()
