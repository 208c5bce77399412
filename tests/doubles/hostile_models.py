"""Files that look like models and are made to hurt who looks at them."""

from __future__ import annotations

import json
import os
import pathlib
import struct
from collections.abc import Callable


def string(text: bytes | str) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def key(name: str, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def gguf(*keys: bytes, count: int | None = None) -> bytes:
    told = len(keys) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", 3, 0, told) + b"".join(keys)


ARCH = key("general.architecture", 8, string("llama"))
DEEP = struct.pack("<IQ", 9, 1) * 3000 + struct.pack("<IQ", 0, 0)
GGUFS: dict[str, bytes] = {
    "nested": gguf(ARCH, key("x", 9, DEEP)),
    "typestr": gguf(ARCH, key("llama.attention.head_count", 8, string("abc"))),
    "typefloat": gguf(ARCH, key("llama.attention.head_count", 6, struct.pack("<f", 1.5))),
    "negative": gguf(ARCH, key("llama.context_length", 11, struct.pack("<q", -5))),
    "blocks": gguf(ARCH, key("llama.block_count", 10, struct.pack("<Q", 2**64 - 1))),
    "context": gguf(ARCH, key("llama.context_length", 10, struct.pack("<Q", 2**63))),
    "badutf8": gguf(key("general.architecture", 8, string(b"\xff\xfe"))),
    "keys": gguf(ARCH, count=2**63),
    "empty": b"",
    "strhuge": gguf(string("x") + struct.pack("<IQ", 8, 2**62), count=1),
    "control": gguf(key("general.architecture", 8, string("a\nb\x1b[2J"))),
}
CONFIGS: dict[str, bytes] = {
    "cfgdeep": b"[" * 100_000 + b"]" * 100_000,
    "cfgstr": json.dumps({"num_attention_heads": "0", "hidden_size": 8}).encode(),
    "cfginf": b'{"max_position_embeddings": Infinity}',
    "cfgarch": b'{"architectures": 5}',
    "cfgnum": b'{"max_position_embeddings": 99999999999999999999999}',
    "cfgbig": b'{"a": "' + b"x" * (9 << 20) + b'"}',
    "cfgtext": b'{"text_config": 7}',
}
HEADERS: dict[str, bytes] = {
    "sthdr": b'{"a":' + b"[" * 200_000,
    "stneg": b'{"a":{"shape":[-5,99999999999999999999]}}',
    "stprod": b'{"a":{"dtype":"F16","data_offsets":[0,1],"shape":['
    + b",".join([b"999999999999999"] * 300_000)
    + b"]}}",
}


def _folder(path: pathlib.Path, config: bytes, header: bytes) -> None:
    path.mkdir()
    (path / "config.json").write_bytes(config)
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


def _sparse(path: pathlib.Path) -> None:
    head = gguf(ARCH, string("x") + struct.pack("<IIQ", 9, 7, 10**8), count=2)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 10**8)


def _with_odd_name(folder: pathlib.Path) -> None:
    (folder / "a\udcff\n.gguf").write_bytes(gguf(ARCH))


def _with_fifo(path: pathlib.Path) -> None:
    path.mkdir()
    (path / "config.json").write_bytes(b'{"model_type": "llama"}')
    os.mkfifo(path / "model.safetensors")


OTHERS: dict[str, Callable[[pathlib.Path], None]] = {
    "fifo": lambda folder: os.mkfifo(folder / "fifo.gguf"),
    "loop": lambda folder: (folder / "loop").symlink_to(folder),
    "devzero": lambda folder: (folder / "devzero.gguf").symlink_to("/dev/zero"),
    "sparse": lambda folder: _sparse(folder / "sparse.gguf"),
    "fiforepo": lambda folder: _with_fifo(folder / "fiforepo"),
    "name": _with_odd_name,
}


def write(folder: pathlib.Path) -> None:
    """All of them into one folder."""
    for name, data in GGUFS.items():
        (folder / f"{name}.gguf").write_bytes(data)
    for name, config in CONFIGS.items():
        _folder(folder / name, config, b"{}")
    for name, header in HEADERS.items():
        _folder(folder / name, b'{"model_type":"llama"}', header)
    for make in OTHERS.values():
        make(folder)
