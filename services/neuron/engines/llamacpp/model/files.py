"""The files of a model on the disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_SHARD: Final = re.compile(r"-00001-of-(\d{5})\.gguf$")


def file_bytes(path: Path) -> int:
    """Bytes of all the files of a model.

    Raises:
        OSError: one cannot be looked at.
    """
    return sum(shard.stat().st_size for shard in _shards(path))


def _shards(path: Path) -> list[Path]:
    """The file itself, all files of a split model whose first one it is, or a folder's tensors."""
    if path.is_dir():
        return list(path.glob("*.safetensors"))
    match = _SHARD.search(path.name)
    if match is None:
        return [path]
    stem = path.name[: match.start()]
    shards = (
        path.with_name(f"{stem}-{i:05}-of-{match[1]}.gguf") for i in range(1, int(match[1]) + 1)
    )
    return [shard for shard in shards if shard.is_file()]
