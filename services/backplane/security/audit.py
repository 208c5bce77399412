"""Who did what, from where, and what came of it: operations on keys, neurons and models.

Every entry is a line of the service's log (`audit.recorded`), and where `[audit]` names a folder
also a line of JSON in a file of its own. Entries name keys by their ids; no secret is in any.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import os
import pathlib
import time
from collections.abc import Generator
from typing import Annotated, Final

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter

from services.backplane.errors import Reason
from services.backplane.excerpt import excerpt
from services.backplane.units import PositiveBytes

OK: Final = "ok"
# Of a name that a caller has sent, in bytes of UTF-8.
_MOST_BYTES: Final = 400
_LOCK: Final = ".lock"
_LOCK_SECONDS: Final = 0.1
# Of what is refused to those who may not, so many lines at once and a second go to the file: who
# has a key of any kind must not turn over what others did.
_REFUSED_AT_ONCE: Final = 60.0
_REFUSED_PER_SECOND: Final = 1.0

log = structlog.get_logger()


class AuditSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[audit]`: who did what to keys, neurons and models.

    Attributes:
        folder: where each service appends to a file of its own, `audit-gateway.jsonl` and
            `audit-registry.jsonl`, that only its user can read. Empty: such lines are in the log
            alone (`audit.recorded`), where they always are.
        max_bytes: a file that has grown so large gets another name, and a new one is begun.
        kept: how many of those are kept; the oldest go first.
    """

    folder: str = ""
    max_bytes: PositiveBytes = 16 << 20
    kept: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One operation.

    Attributes:
        operation: what was asked for, `key.create`.
        who: a key by its id, a certificate by its serial number, or `anybody`.
        principal: of the key.
        source: the address that it came from.
        on_behalf: who has asked the gateway that asks, in its words.
        target: what it was about.
        result: `ok`, or the reason why not; empty while it goes on.
        request_id: by which other lines of the logs name it.
    """

    operation: str
    who: str
    principal: str = ""
    source: str = ""
    on_behalf: str = ""
    target: str = ""
    result: str = ""
    request_id: str = ""


class AuditLog:
    """Writes entries, to the log and to a file.

    Args:
        settings: where to, and how much.
        service: whose they are.
        registry: counts them.
    """

    def __init__(self, settings: AuditSettings, service: str, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._service = service
        self._refused = (_REFUSED_AT_ONCE, time.monotonic())
        self._entries = Counter(
            f"cortex_{service}_operations_total",
            "Operations on keys, neurons and models that were asked for, by their result.",
            ["operation", "result"],
            registry=registry,
        )
        self._unwritten = Counter(
            f"cortex_{service}_audit_unwritten_total",
            "Lines that the file of the audit log did not take; they are in the log.",
            registry=registry,
        )

    def use(self, settings: AuditSettings) -> None:
        """Writes by these settings from now on."""
        self._settings = settings

    def record(self, entry: AuditEntry) -> None:
        """Writes one entry; never raises: what was done is done, and the log has it."""
        entry = msgspec.structs.replace(
            entry,
            target=excerpt(entry.target, _MOST_BYTES),
            on_behalf=excerpt(entry.on_behalf, _MOST_BYTES),
        )
        facts = {k: v for k, v in msgspec.structs.asdict(entry).items() if v}
        log.info("audit.recorded", **facts)
        self._entries.labels(entry.operation, entry.result).inc()
        if self._settings.folder and not self._is_flood(entry):
            try:
                self._append(entry)
            except OSError as error:
                self._unwritten.inc()
                log.error("audit.unwritten", detail=str(error))  # noqa: TRY400 - no defect

    def _is_flood(self, entry: AuditEntry) -> bool:
        """Whether more was refused of late than the file is to hold."""
        if entry.result != Reason.FORBIDDEN.value:
            return False
        now = time.monotonic()
        left, at = self._refused
        left = min(_REFUSED_AT_ONCE, left + (now - at) * _REFUSED_PER_SECOND)
        is_flood = left < 1.0
        self._refused = (left if is_flood else left - 1.0, now)
        if is_flood:
            self._unwritten.inc()
        return is_flood

    def _append(self, entry: AuditEntry) -> None:
        folder = pathlib.Path(self._settings.folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"audit-{self._service}.jsonl"
        at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = {"at": at, "service": self._service, **msgspec.to_builtins(entry)}
        line = msgspec.json.encode(told) + b"\n"
        # several processes of one gateway write the same file
        with _locked(folder / f"{path.name}{_LOCK}"):
            descriptor = _opened(path)
            try:
                if os.fstat(descriptor).st_size + len(line) > self._settings.max_bytes:
                    os.close(descriptor)
                    self._rotate(path)
                    descriptor = _opened(path)
                _write_whole(descriptor, line)
            finally:
                os.close(descriptor)

    def _rotate(self, path: pathlib.Path) -> None:
        for number in range(self._settings.kept, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)


def result_of(reason: Reason | None) -> str:
    """The `result` of an entry: `ok`, or the reason why the operation failed."""
    return OK if reason is None else reason.value


def _opened(path: pathlib.Path) -> int:
    """Opens a file, and not what somebody has put in its place: a link, or a pipe nobody reads.

    Raises:
        OSError: it cannot be.
    """
    how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(path, how, 0o600)


def _write_whole(descriptor: int, line: bytes) -> None:
    """Appends a line, or nothing of it: behind half a line the next one could not be read.

    Raises:
        OSError: the disk is full, say.
    """
    before = os.fstat(descriptor).st_size
    if os.write(descriptor, line) < len(line):
        os.ftruncate(descriptor, before)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lock(descriptor: int) -> None:
    """Waits for the lock, but not for a process that is frozen while it has it.

    Raises:
        TimeoutError: somebody has it for longer than it takes to write a line.
    """
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, "Another process has it locked.") from None
        time.sleep(_LOCK_SECONDS / 100)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Generator[None]:
    descriptor = _opened(path)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)
