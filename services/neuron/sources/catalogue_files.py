"""Sources that catalogues on this host name, such as the `models.toml` of `cortex up`."""

from __future__ import annotations

import pathlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from services.neuron.sources import checksum

_EMPTY: Final[Mapping[str, str]] = MappingProxyType({})


class CatalogueFiles:
    """What catalogue files name; a file that has changed is read again.

    Args:
        paths: of TOML files. One that is not there, or is broken, names nothing.
    """

    def __init__(self, paths: Sequence[str] = ()) -> None:
        self._paths = [pathlib.Path(each).expanduser() for each in paths]
        self._read: dict[pathlib.Path, tuple[tuple[int, int], Mapping[str, str]]] = {}

    def digest_of(self, source: str) -> str | None:
        """The SHA-256 that a file gives for a source, empty where it gives none. Blocks.

        Returns:
            None: no file names that source.
        """
        for path in self._paths:
            digest = self._sources_of(path).get(source)
            if digest is not None:
                return digest
        return None

    def _sources_of(self, path: pathlib.Path) -> Mapping[str, str]:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            before = self._read.get(path)
            if before is not None and before[0] == stamp:
                return before[1]
            found = dict(map(checksum.split, _texts(tomllib.loads(path.read_text("utf-8")))))
        except (OSError, ValueError, RecursionError):
            return _EMPTY
        self._read[path] = (stamp, found)
        return found


def _texts(value: Any) -> Iterator[str]:
    """All texts of a document: sources stand at several keys, and at more with time."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
