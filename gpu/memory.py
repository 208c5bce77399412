"""Loads and unloads a model five times: does the memory come back, by the driver's own count."""

from __future__ import annotations

import asyncio
from typing import Any

from gpu.bench_setting import EMULATED, keep, models
from gpu.neuron import running

ROUNDS = 5
ALLOWED_BYTES = 64 << 20


async def main() -> None:
    """Keeps used memory before, loaded, and after, and whether the worker was replaced."""
    # The largest model shows most.
    name, _ = max(models().items(), key=lambda item: _size(item[1]))
    rows = []
    async with running("memory") as neuron:
        await neuron.load(name)
        await neuron.unload(name)
        for _ in range(ROUNDS):
            before, pids = _used(), {one.pid for one in (await neuron.status()).workers}
            await neuron.load(name)
            loaded = _used()
            await neuron.unload(name)
            after = _used()
            recycled = {one.pid for one in (await neuron.status()).workers} != pids
            rows.append(
                {
                    "before": before,
                    "loaded": loaded,
                    "after": after,
                    "recycled": recycled,
                    "came_back": after - before <= ALLOWED_BYTES or recycled,
                }
            )
    keep("memory", {"model": name, "measured": not EMULATED, "rounds": rows})


def _used() -> int:
    if EMULATED:
        return 0
    import pynvml

    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    finally:
        pynvml.nvmlShutdown()


def _size(path: Any) -> int:
    return sum(int(file.stat().st_size) for file in path.glob("*.safetensors"))


if __name__ == "__main__":
    asyncio.run(main())
