"""Saved sequences of one model, in tiers: a folder in memory, and one on disk behind it.

Several processes share the folders. Whoever writes holds a lock, so that the bounds hold for all of
them together; who reads needs none, since a file is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
import shutil
import uuid
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from services.neuron.engines.common.kv_store import sequence_file
from services.neuron.engines.common.kv_store.prefix import common_prefix
from services.neuron.engines.common.kv_store.sequence_file import (
    BadSequenceFileError,
    SavedSequence,
)
from services.neuron.engines.common.kv_store.tier_files import (
    SUFFIX,
    SavedFile,
    all_files,
    files_of,
    locked,
    make_folder,
    move,
)

MOST_FILES: Final = 256
"""Of one model and scope, in all tiers: each is compared with every prompt."""
_SPARE_SHARE: Final = 0.5
"""Of what the file system of a tier has free, at most so much is taken by one file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tier:
    """A folder and its bound.

    Attributes:
        folder: holds files of all models.
        most_bytes: of all of them together.
    """

    folder: pathlib.Path
    most_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SavedEntry:
    """A saved sequence, as far as it is kept in memory.

    Attributes:
        path: its file, which may be gone.
        tokens: (count,) int32.
        checkpoint_lengths: after how many tokens it can be cut, where the engine needs checkpoints.
        marks: names of the beginnings of prompts that it has, each with its length.
        size_bytes: of its file.
    """

    path: pathlib.Path
    tokens: npt.NDArray[np.int32] = dataclasses.field(repr=False)
    checkpoint_lengths: tuple[int, ...] = ()
    marks: tuple[tuple[int, bytes], ...] = ()
    size_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Listing:
    """What was in the folders of a scope when they were last changed."""

    state: tuple[int, ...]
    entries: list[SavedEntry]


class KvStore:
    """The saved sequences of one model.

    A sequence is found only by who has the same identity and the same scope: both are names of
    folders, by their digests.

    Args:
        tiers: the fastest first.
        identity: what a state depends on: the files of the model, the build of the engine, the
            format of the cache, adapters.
        key: the neuron's, with which files are encrypted; None: they are not. Files of another
            kind or key are dropped.
    """

    def __init__(self, tiers: Sequence[Tier], *, identity: str, key: bytes | None = None) -> None:
        self._tiers = [tier for tier in tiers if tier.most_bytes > 0]
        self._identity = _digest(identity)
        self._key = key
        self._seen: dict[str, _Listing] = {}

    def entries(self, scope: str) -> Sequence[SavedEntry]:
        """What is saved of a scope; read again only where a folder has changed."""
        return self._listed(_digest(scope))

    def all_entries(self) -> Iterator[SavedEntry]:
        """All saved sequences of the model, of every principal; likewise."""
        names: set[str] = set()
        for tier in self._tiers:
            with contextlib.suppress(OSError):
                names.update(one.name for one in (tier.folder / self._identity).iterdir())
        for name in self._seen.keys() - names:
            del self._seen[name]
        for name in sorted(names):
            yield from self._listed(name)

    def _listed(self, name: str) -> Sequence[SavedEntry]:
        folders = [tier.folder / self._identity / name for tier in self._tiers]
        state = tuple(_changed_at(folder) for folder in folders)
        seen = self._seen.get(name)
        if seen is None or seen.state != state:
            before = {} if seen is None else {entry.path: entry for entry in seen.entries}
            paths = [file.path for folder in folders for file in files_of(folder)]
            read = (before.get(path) or self._entry(path) for path in paths)
            seen = _Listing(state, [entry for entry in read if entry is not None])
            self._seen[name] = seen
        return seen.entries

    def read(self, entry: SavedEntry, *, seconds: float) -> SavedSequence | None:
        """Reads a saved sequence; None where it is gone, damaged (then removed) or too slow."""
        try:
            return sequence_file.read(entry.path, key=self._key, seconds=seconds)
        except BadSequenceFileError:
            entry.path.unlink(missing_ok=True)
        except OSError:
            pass
        return None

    def put(self, scope: str, sequence: SavedSequence, *, seconds: float) -> bool:
        """Saves a sequence.

        1. One that is the beginning of another of its scope is not saved, and those that are
           beginnings of it go once it is kept.
        2. Where a tier is full, what saves the fewest seconds per byte leaves it for the next one,
           if need be this sequence itself. The last tier forgets.
        3. At most `MOST_FILES` of a scope are kept, likewise.

        Args:
            scope: who may have it again.
            sequence: what was in the cache.
            seconds: how long reading its tokens took, or would take.

        Returns: True if it is kept.

        Raises:
            OSError: a folder cannot be written, or others write for too long.
        """
        if not self._tiers:
            return False
        for tier in self._tiers:
            make_folder(self._folder(tier, scope))
        with self._locked():
            beginnings: set[pathlib.Path] = set()
            for other in self.entries(scope):
                common = common_prefix(other.tokens, sequence.tokens)
                if common == len(sequence.tokens):
                    return True
                if common == len(other.tokens):
                    beginnings.add(other.path)
            return self._place(scope, sequence, seconds, beginnings)

    def _place(
        self, scope: str, sequence: SavedSequence, seconds: float, beginnings: set[pathlib.Path]
    ) -> bool:
        name = f"{uuid.uuid4().hex[:16]}-{int(seconds * 1000)}{SUFFIX}"
        worth = seconds / max(1, sequence.size_bytes)
        failure: OSError | None = None
        for level, tier in enumerate(self._tiers):
            if not self._make_room(level, sequence.size_bytes, worth, beginnings):
                continue
            path = self._folder(tier, scope) / name
            try:
                sequence_file.write(path, sequence, key=self._key)
            except OSError as error:  # it may be full, whatever it says: the next one may have room
                failure = error
                continue
            for beginning in beginnings:
                beginning.unlink(missing_ok=True)
            self._thin_out(scope)
            return path.exists()
        if failure is not None:
            raise failure
        return False

    def _make_room(
        self,
        level: int,
        size_bytes: int,
        worth: float,
        replaced: Collection[pathlib.Path] = (),
    ) -> bool:
        """Frees so many bytes of a tier from what is worth less; False, and nothing, if too few.

        What is `replaced` is worth nothing.
        """
        tier = self._tiers[level]
        files = all_files(tier.folder)
        files.sort(key=lambda file: (file.path not in replaced, file.worth))
        used = sum(file.size_bytes for file in files)
        spare = shutil.disk_usage(tier.folder).free * _SPARE_SHARE
        going: list[SavedFile] = []
        while used + size_bytes > tier.most_bytes or size_bytes > spare:
            if not files or (files[0].path not in replaced and files[0].worth >= worth):
                return False
            victim = files.pop(0)
            going.append(victim)
            used -= victim.size_bytes
            spare += victim.size_bytes * _SPARE_SHARE
        for victim in going:
            if victim.path in replaced:
                victim.path.unlink(missing_ok=True)
            else:
                self._demote(level, victim)
        return True

    def _demote(self, level: int, file: SavedFile) -> None:
        """Moves a file to the next tier that has room for it, or forgets it."""
        for below in range(level + 1, len(self._tiers)):
            if self._make_room(below, file.size_bytes, file.worth):
                old, new = self._tiers[level].folder, self._tiers[below].folder
                move(file.path, new / file.path.relative_to(old))
                return
        file.path.unlink(missing_ok=True)

    def _thin_out(self, scope: str) -> None:
        files = [f for tier in self._tiers for f in files_of(self._folder(tier, scope))]
        files.sort(key=lambda file: file.worth, reverse=True)
        for file in files[MOST_FILES:]:
            file.path.unlink(missing_ok=True)

    def _entry(self, path: pathlib.Path) -> SavedEntry | None:
        """What a file holds; None where it cannot be read, or was damaged and is gone now."""
        try:
            head = sequence_file.read_head(path, key=self._key)
            return SavedEntry(path, head.token_ids, head.lengths, head.marks, path.stat().st_size)
        except BadSequenceFileError:
            path.unlink(missing_ok=True)
        except OSError:
            pass
        return None

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Nobody else writes meanwhile."""
        with contextlib.ExitStack() as held:
            for tier in self._tiers:
                held.enter_context(locked(tier.folder))
            yield

    def _folder(self, tier: Tier, scope: str) -> pathlib.Path:
        return tier.folder / self._identity / _digest(scope)


def _changed_at(folder: pathlib.Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
