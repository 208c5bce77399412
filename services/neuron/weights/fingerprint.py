"""Tells the versions of a model's files apart without reading all of them.

A digest of a hundred gigabytes takes minutes and a listing must not; the sizes and the two ends of
every file change with whatever is done to the weights.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Final

from services.neuron.weights import untrusted

_END_BYTES: Final = 64 << 10


def fingerprint(files: Sequence[pathlib.Path]) -> str:
    """Hex SHA-256 over size, first and last 64 KiB of each file, in the order given. Blocks.

    Names do not count, so that one model has one fingerprint wherever it lies.

    Raises:
        OSError: a file cannot be read.
        DistrustedError: it is no regular file.
    """
    made = hashlib.sha256()
    for path in files:
        with untrusted.opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            made.update(size.to_bytes(8, "little"))
            made.update(file.read(_END_BYTES))
            file.seek(max(_END_BYTES, size - _END_BYTES))
            made.update(file.read(_END_BYTES))
    return made.hexdigest()
