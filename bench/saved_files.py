"""`python -m bench.saved_files`: what it costs to encrypt saved caches, write and read.

Files of one size in memory, as a worker saves and restores them; plain and encrypted in turn, CPU
seconds of this process. Medians of all rounds.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

from services.neuron.engines.common.kv_store import sequence_file
from services.neuron.engines.common.kv_store.sealing import KEY_BYTES
from services.neuron.engines.common.kv_store.sequence_file import SavedSequence


def main() -> None:
    """Measures both kinds in turn and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.saved_files", description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=128, help="of each file")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    keys = {"plain": None, "encrypted": os.urandom(KEY_BYTES)}
    sequence = SavedSequence(np.arange(4096, dtype=np.int32), os.urandom(asked.mebibytes << 20))
    seconds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = pathlib.Path(folder) / "one.kv"
        for _ in range(asked.rounds):
            for kind, key in keys.items():
                write = functools.partial(sequence_file.write, path, sequence, key=key)
                seconds.setdefault((kind, "write"), []).append(_timed(write))
                read = functools.partial(sequence_file.read, path, key=key)
                seconds.setdefault((kind, "read"), []).append(_timed(read))
    for kind in keys:
        rates = (
            asked.mebibytes * 1.048576 / statistics.median(seconds[kind, what])
            for what in ("write", "read")
        )
        print(f"{kind:10} {next(rates):7.0f} MB/s written {next(rates):7.0f} MB/s read")


def _timed(work: Callable[[], object]) -> float:
    since = time.process_time()
    work()
    return time.process_time() - since


if __name__ == "__main__":
    main()
