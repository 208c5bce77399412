"""Ends a worker under 16 streams while another neuron's worker on the same device streams.

Killed (`SIGKILL`) and stopped (`SIGSTOP`: the watchdog has to find out). An error of the device
itself is `device_fault`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from typing import Any

from cortex.v1 import model_pb2 as model
from gpu.bench_setting import PROMPT_TOKENS, keep, models, prompts
from gpu.neuron import Neuron, running

STREAMS = 16
TOKENS = 120
RECOVERY_SECONDS = 120.0
FAULTS = {"SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}


async def main() -> None:
    """Keeps what each fault cost."""
    name = next(name for name in models() if name.endswith("-fp16"))
    wanted = prompts(STREAMS, PROMPT_TOKENS, vocabulary=250, seed=7)
    result: dict[str, Any] = {"model": name, "streams": STREAMS}
    async with running("victim") as victim, running("bystander") as bystander:
        await asyncio.gather(victim.load(name), bystander.load(name))
        unbroken = [said for said, _, _ in await _all(victim, name, wanted)]
        calm = await _bystand(bystander, name, wanted[0], asyncio.Event(), least=200)
        result["bystander_gap_undisturbed"] = calm
        for word, number in FAULTS.items():
            stop = asyncio.Event()
            beside = asyncio.create_task(_bystand(bystander, name, wanted[0], stop))
            row = await _disturb(victim, name, wanted, unbroken, number)
            stop.set()
            row["bystander_longest_gap"] = await beside
            result[word] = row
    keep("faults", result)


async def _all(neuron: Neuron, name: str, wanted: list[list[int]]) -> Any:
    return await asyncio.gather(
        *[neuron.generate(name, prompt, tokens=TOKENS) for prompt in wanted],
        return_exceptions=False,
    )


async def _disturb(
    victim: Neuron, name: str, wanted: list[list[int]], unbroken: list[list[int]], number: int
) -> dict[str, Any]:
    """Sends a signal in the middle of all streams, and sees how they end."""
    pid = await victim.worker_pid()
    seen = 0
    middle = asyncio.Event()

    def count(tokens: int) -> None:
        nonlocal seen
        seen += tokens
        if seen >= STREAMS * TOKENS // 3:
            middle.set()

    streams = [
        asyncio.create_task(victim.generate(name, prompt, tokens=TOKENS, on_tokens=count))
        for prompt in wanted
    ]
    await asyncio.wait_for(middle.wait(), RECOVERY_SECONDS)
    os.kill(pid, number)
    begun = time.monotonic()
    ready = asyncio.create_task(victim.until(_has_new_worker(name, pid), RECOVERY_SECONDS))
    answers = await asyncio.gather(*streams, return_exceptions=True)
    ended = time.monotonic() - begun
    good = [answer for answer in answers if not isinstance(answer, BaseException)]
    return {
        "ready_again_seconds": round(await ready, 2),
        "streams_ended_seconds": round(ended, 2),
        "streams_that_ended_well": len(good),
        "of_these_resumed": sum(finished.resumed for _, finished, _ in good),
        "equal_to_unbroken": sum(
            not isinstance(answer, BaseException) and answer[0] == before
            for answer, before in zip(answers, unbroken, strict=True)
        ),
        "errors": sorted({str(a)[:200] for a in answers if isinstance(a, BaseException)}),
    }


def _has_new_worker(name: str, old_pid: int) -> Any:
    def holds(report: Any) -> bool:
        is_ready = any(
            one.spec.model == name and one.state == model.INSTANCE_STATE_READY
            for one in report.instances
        )
        return is_ready and any(one.pid not in {0, old_pid} for one in report.workers)

    return holds


async def _bystand(
    neuron: Neuron, name: str, prompt: list[int], stop: asyncio.Event, *, least: int = 0
) -> float:
    """Streams until told to stop; the longest silence between two messages of one stream."""
    longest, made = 0.0, 0
    while not stop.is_set():
        said, _, times = await neuron.generate(name, prompt, tokens=TOKENS)
        longest = max([longest, *(b - a for a, b in itertools.pairwise(times))])
        made += len(said)
        if least and made >= least:
            break
    return round(longest, 3)


if __name__ == "__main__":
    asyncio.run(main())
