"""Lines of several log files in the order of their times, and those that come."""

from __future__ import annotations

import heapq
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, NamedTuple

from services.cli.logs.rotation import KEPT, older

_FIRST: Final = ("timestamp", "level", "event", "service")
# Threads and workers of a service take the time of a line and write it in an order of their own;
# so many lines of one file may stand between a line and its place.
_ASTRAY: Final = 4096


class Line(NamedTuple):
    """One line of a log.

    Attributes:
        timestamp: as it stands there; that of the line before where it has none.
        service: whose log it is in.
        text: the whole line.
    """

    timestamp: str
    service: str
    text: str


def files_of(folder: pathlib.Path, service: str) -> Sequence[pathlib.Path]:
    """A service's log files that there are, oldest first."""
    newest = folder / f"{service}.log"
    names = [*(older(newest, number) for number in range(KEPT, 0, -1)), newest]
    return [path for path in names if path.is_file()]


def lines_of(folder: pathlib.Path, services: Iterable[str], holding: str = "") -> Iterator[Line]:
    """The lines of several services, oldest first.

    Args:
        folder: of the logs.
        services: whose.
        holding: a text that a line has to have, such as a request's id.
    """
    each = [_in_order(_of_service(files_of(folder, service), service)) for service in services]
    for line in heapq.merge(*each, key=lambda line: line.timestamp):
        if holding in line.text:
            yield line


def _in_order(lines: Iterable[Line]) -> Iterator[Line]:
    """Lines by their times; those of one time stay as they stood."""
    waiting: list[tuple[str, int, Line]] = []
    for number, line in enumerate(lines):
        heapq.heappush(waiting, (line.timestamp, number, line))
        if len(waiting) > _ASTRAY:
            yield heapq.heappop(waiting)[-1]
    while waiting:
        yield heapq.heappop(waiting)[-1]


def _of_service(paths: Sequence[pathlib.Path], service: str) -> Iterator[Line]:
    at = ""
    for path in paths:
        try:
            file = path.open("rb")
        except FileNotFoundError:  # turned over meanwhile
            continue
        with file:
            for raw in file:
                line = line_of(raw, service, at)
                at = line.timestamp
                yield line


def line_of(raw: bytes, service: str, before: str) -> Line:
    """A line of a file.

    Args:
        raw: with its end.
        service: whose.
        before: the time of the line before.
    """
    text = raw.decode("utf-8", "replace").rstrip("\r\n")
    return Line(str(_facts(text).get("timestamp", before)), service, text)


def words(line: Line) -> str:
    """A line for people: its time, its service and event, then the facts that say anything."""
    facts = _facts(line.text)
    if not facts:
        return f"{line.service:8} {line.text}"
    clock = line.timestamp.partition("T")[2].rstrip("Z")[:12]
    told = " ".join(
        f"{key}={value if isinstance(value, str) and ' ' not in value else _short(value)}"
        for key, value in facts.items()
        if key not in _FIRST and value not in (None, "", [], {})
    )
    level, event = (str(facts.get(key, "")) for key in ("level", "event"))
    head = f"{clock} {line.service:8} {level:7} {event}"
    return f"{head} {told}".rstrip()


def _facts(text: str) -> Mapping[str, Any]:
    if not text.startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class LogFollower:
    """Reads what is appended to a service's log, also where the file is turned over meanwhile.

    Args:
        folder: of the logs.
        service: whose.
    """

    def __init__(self, folder: pathlib.Path, service: str) -> None:
        self._path = folder / f"{service}.log"
        self._service = service
        self._at = self._path.stat().st_size if self._path.is_file() else 0
        self._half = b""
        self._time = ""

    def new_lines(self) -> Iterator[Line]:
        """All whole lines since the last time."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            size = file.seek(0, 2)
            if size < self._at:  # it was copied aside; its end is there
                copy = older(self._path, 1)
                if copy.is_file():
                    with copy.open("rb") as aside:
                        yield from self._read(aside, self._at)
                self._at = 0
            yield from self._read(file, self._at)
            self._at = file.tell()

    def _read(self, file: BinaryIO, at: int) -> Iterator[Line]:
        file.seek(at)
        *whole, self._half = (self._half + file.read()).split(b"\n")
        for raw in whole:
            line = line_of(raw, self._service, self._time)
            self._time = line.timestamp
            yield line
