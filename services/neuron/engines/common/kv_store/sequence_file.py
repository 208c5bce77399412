"""One saved sequence as a file: its tokens, then the engine's own bytes, with a checksum.

Layout: magic, length of the header (u32, little endian), the header in msgpack, the states one
after the other. With a key: another magic, a salt, the length, then header and states in chunks,
each of them sealed.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import struct
import time
import zlib
from collections.abc import Generator, Iterator
from typing import BinaryIO, Final

import msgspec
import numpy as np
import numpy.typing as npt

from services.neuron.engines.common.kv_store.sealing import (
    SALT_BYTES,
    TAG_BYTES,
    BadSealError,
    Seal,
)

_MAGIC: Final = b"cortexkv"
_SEALED_MAGIC: Final = b"cortexks"
_LENGTH: Final = struct.Struct("<I")
_MOST_HEADER_BYTES: Final = 64 << 20
_MOST_FIXED_BYTES: Final = 128  # of a header, but for tokens and checkpoints
_MOST_CHECKPOINT_BYTES: Final = 32
_MOST_MARK_BYTES: Final = 48
_CHUNK_BYTES: Final = 4 << 20


class BadSequenceFileError(Exception):
    """The file is not what was written: cut, changed, of another layout, or with another key."""


class SavedSequence(msgspec.Struct, frozen=True):
    """What the cache of one sequence held.

    Attributes:
        tokens: (count,) int32, in order.
        state: the engine's copy of the sequence.
        checkpoints: states after so many of its first tokens, where it cannot be cut without.
        marks: after so many of its first tokens a prompt's beginning ends that has this name.
    """

    tokens: npt.NDArray[np.int32]
    state: bytes
    checkpoints: tuple[tuple[int, bytes], ...] = ()
    marks: tuple[tuple[int, bytes], ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of memory that are counted for it: at least those of its file."""
        states = [len(self.state), *(len(state) for _, state in self.checkpoints)]
        head = _MOST_FIXED_BYTES + _MOST_CHECKPOINT_BYTES * len(self.checkpoints)
        head += _MOST_MARK_BYTES * len(self.marks)
        tags = TAG_BYTES * (1 + sum(map(_chunks, states)))
        return sum(states) + self.tokens.nbytes + head + tags


class SequenceHead(msgspec.Struct, frozen=True):
    """What a file says of itself before its states.

    Attributes:
        tokens: little-endian int32.
        state_bytes: length of the state.
        checkpoints: tokens and length of each checkpoint.
        checksum: CRC-32 of tokens and states.
        marks: as the sequence has them.
    """

    tokens: bytes
    state_bytes: int
    checkpoints: tuple[tuple[int, int], ...]
    checksum: int
    marks: tuple[tuple[int, bytes], ...] = ()

    @property
    def token_ids(self) -> npt.NDArray[np.int32]:
        """(count,) int32."""
        return np.frombuffer(self.tokens, dtype="<i4")

    @property
    def lengths(self) -> tuple[int, ...]:
        """After how many tokens there are checkpoints, rising."""
        return tuple(length for length, _ in self.checkpoints)


def write(path: pathlib.Path, sequence: SavedSequence, *, key: bytes | None = None) -> None:
    """Writes a file that is there whole or not at all; only its owner can read it.

    Args:
        path: the file, in the folder of its model and scope.
        sequence: what it holds.
        key: the neuron's, to encrypt it with; None: it is not encrypted.

    Raises:
        OSError: it could not be written; nothing is left of it.
    """
    states = [sequence.state, *(state for _, state in sequence.checkpoints)]
    tokens = sequence.tokens.astype("<i4").tobytes()
    head = SequenceHead(
        tokens,
        len(sequence.state),
        tuple((length, len(state)) for length, state in sequence.checkpoints),
        _checksum(tokens, states),
        sequence.marks,
    )
    packed = msgspec.msgpack.encode(head)
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if key is None:
                file.writelines([_MAGIC, _LENGTH.pack(len(packed)), packed, *states])
            else:
                file.writelines(_sealed(path, key, packed, states))
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_head(path: pathlib.Path, *, key: bytes | None = None) -> SequenceHead:
    """What a file says of itself.

    Args:
        path: the file.
        key: see `write`.

    Raises:
        BadSequenceFileError: it is no such file, or was written with another key.
        OSError: it cannot be read.
    """
    with _noticed(path), path.open("rb") as file:
        return _head(file, _seal_of(path, file, key))


def read(
    path: pathlib.Path, *, key: bytes | None = None, seconds: float = math.inf
) -> SavedSequence:
    """The whole sequence, as it was saved.

    Args:
        path: its file.
        key: see `write`.
        seconds: how long it may take; looked at between two pieces of `_CHUNK_BYTES`.

    Raises:
        BadSequenceFileError: it is damaged, or was written with another key.
        OSError: it cannot be read; TimeoutError: not in time.
    """
    until = time.monotonic() + seconds
    with _noticed(path), path.open("rb") as file:
        seal = _seal_of(path, file, key)
        head = _head(file, seal)
        sizes = [head.state_bytes, *(size for _, size in head.checkpoints)]
        tags = 0 if seal is None else TAG_BYTES * sum(map(_chunks, sizes))
        if os.fstat(file.fileno()).st_size != file.tell() + sum(sizes) + tags:
            raise BadSequenceFileError(f"{path.name} has another length than it says.")
        states = [_state(file, size, until, seal=seal) for size in sizes]
    if _checksum(head.tokens, states) != head.checksum:
        raise BadSequenceFileError(f"{path.name} was changed after it was written.")
    checkpoints = tuple(zip(head.lengths, states[1:], strict=True))
    return SavedSequence(head.token_ids, states[0], checkpoints, head.marks)


def _sealed(path: pathlib.Path, key: bytes, packed: bytes, states: list[bytes]) -> Iterator[bytes]:
    salt = os.urandom(SALT_BYTES)
    seal = Seal(key, salt=salt, place=_place(path))
    yield _SEALED_MAGIC
    yield salt
    yield _LENGTH.pack(len(packed) + TAG_BYTES)
    yield seal.seal(packed)
    for state in states:
        for begin in range(0, len(state), _CHUNK_BYTES):
            yield seal.seal(state[begin : begin + _CHUNK_BYTES])


def _seal_of(path: pathlib.Path, file: BinaryIO, key: bytes | None) -> Seal | None:
    """How a file that was begun to be read is sealed.

    Raises:
        BadSequenceFileError: it is encrypted and there is no key, or the other way round.
    """
    if file.read(len(_MAGIC)) != (_MAGIC if key is None else _SEALED_MAGIC):
        raise BadSequenceFileError("It does not begin as a saved sequence does.")
    if key is None:
        return None
    return Seal(key, salt=file.read(SALT_BYTES), place=_place(path))


def _place(path: pathlib.Path) -> str:
    """The folders of model and scope, which are the same in all tiers."""
    return f"{path.parent.parent.name}/{path.parent.name}"


@contextlib.contextmanager
def _noticed(path: pathlib.Path) -> Generator[None]:
    """A chunk that is not what was sealed makes a bad file."""
    try:
        yield
    except BadSealError as error:
        told = f"{path.name} was changed, or written with another key."
        raise BadSequenceFileError(told) from error


def _chunks(size: int) -> int:
    return -(-size // _CHUNK_BYTES)


def _state(file: BinaryIO, size: int, until: float, *, seal: Seal | None) -> bytes:
    """The next bytes of a file; fewer where it ends.

    Raises:
        TimeoutError: the time is over (monotonic seconds).
    """
    chunks: list[bytes] = []
    left = size
    while left > 0:
        if time.monotonic() > until:
            raise TimeoutError("The file could not be read in time.")
        wanted = min(left, _CHUNK_BYTES)
        chunk = file.read(wanted) if seal is None else seal.open(file.read(wanted + TAG_BYTES))
        if not chunk:
            break
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _head(file: BinaryIO, seal: Seal | None) -> SequenceHead:
    size = file.read(_LENGTH.size)
    if len(size) != _LENGTH.size:
        raise BadSequenceFileError("It does not begin as a saved sequence does.")
    (length,) = _LENGTH.unpack(size)
    if length > _MOST_HEADER_BYTES:
        raise BadSequenceFileError("Its header is too long.")
    packed = file.read(length)
    if seal is not None:
        packed = seal.open(packed)
    try:
        head = msgspec.msgpack.decode(packed, type=SequenceHead)
    except msgspec.MsgspecError as error:
        raise BadSequenceFileError("Its header cannot be read.") from error
    if len(head.tokens) % 4 or head.state_bytes < 0 or any(s < 0 for _, s in head.checkpoints):
        raise BadSequenceFileError("Its header makes no sense.")
    return head


def _checksum(tokens: bytes, states: list[bytes]) -> int:
    checksum = zlib.crc32(tokens)
    for state in states:
        checksum = zlib.crc32(state, checksum)
    return checksum
