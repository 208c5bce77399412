"""Builds the extension, if it is not in the cache yet."""

from __future__ import annotations

import time

from gpu.bench_setting import EMULATED, keep


def main() -> None:
    """Builds and keeps how long it took."""
    if EMULATED:
        keep("extension", {"skipped": "emulated"})
        return
    from services.neuron.engines.exllamav2.library import build, probe

    key, cache = probe.build_key(), build.cache_folder()
    was_there = key.file(cache).is_file()
    begun = time.monotonic()
    file = build.build(key, cache=cache, limit_seconds=560)
    keep(
        "extension",
        {
            "seconds": round(time.monotonic() - begun, 1),
            "was_there": was_there,
            "bytes": file.stat().st_size,
            "key": key.name,
        },
    )


if __name__ == "__main__":
    main()
