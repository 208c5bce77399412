"""The encryption of saved sequences: the neuron's key, and the chunks of one file.

AES-256-GCM. Each file has a key of its own (HKDF of the neuron's key, a salt of the file, and the
folders that it lies in), under which its chunks are numbered: none can be changed, moved, left out,
or taken over into another model's or principal's folder without being noticed.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
TAG_BYTES: Final = 16
"""By so many a sealed chunk is longer."""
_NONCE_BYTES: Final = 12


class BadSealError(Exception):
    """The data cannot be decrypted: another key, another place, or changed since."""


class Seal:
    """Seals the chunks of one file, or opens them, in the same order.

    Args:
        key: the neuron's.
        salt: of the file, drawn for it.
        place: where the file belongs.
    """

    def __init__(self, key: bytes, *, salt: bytes, place: str) -> None:
        info = b"cortex saved sequence\0" + salt + place.encode()
        own = HKDFExpand(algorithm=hashes.SHA256(), length=KEY_BYTES, info=info).derive(key)
        self._cipher = AESGCM(own)
        self._chunks = 0

    def seal(self, chunk: bytes) -> bytes:
        """The next chunk, encrypted."""
        return self._cipher.encrypt(self._next_nonce(), chunk, None)

    def open(self, sealed: bytes) -> bytes:
        """The next chunk, as it was.

        Raises:
            BadSealError: it is not what was sealed.
        """
        try:
            return self._cipher.decrypt(self._next_nonce(), sealed, None)
        except InvalidTag as error:
            raise BadSealError from error

    def _next_nonce(self) -> bytes:
        self._chunks += 1
        return self._chunks.to_bytes(_NONCE_BYTES, "big")


def make_key(path: pathlib.Path) -> None:
    """Draws the neuron's key into a file that its user alone can read, where there is none yet.

    Raises:
        OSError: it cannot be written, or is no key that is kept from others.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        made = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(os.urandom(KEY_BYTES).hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(made, path)  # not over another's: of two that start together one is first
        finally:
            made.unlink(missing_ok=True)
    read_key(path)


def read_key(path: pathlib.Path) -> bytes:
    """The neuron's key.

    Raises:
        OSError: it cannot be read, others can read it too, or it is no key.
    """
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise PermissionError(f"{path} can be read by others; its mode must be 600.")
        text = file.read(4 * KEY_BYTES)
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise OSError(f"{path} holds no key: {KEY_BYTES} bytes in hexadecimal.")
    return key
