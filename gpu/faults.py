"""Strikes a worker under 16 streams while another neuron's worker on the same device streams.

Killed, stopped (the watchdog has to find out), an exception out of the library, and a real error of
the device: an assertion in a kernel. The scenario is the one of the tests.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gpu.bench_setting import CLEAR, EMULATED, keep, models
from gpu.neuron import running
from tests.system.fleet.worker_faults import FAULTS, STREAMS, Outcome, Side, Stage

TOKENS = 120 if EMULATED else 400


async def main() -> None:
    """Keeps what each fault cost."""
    name = next(name for name in models() if name.endswith("-fp16"))
    result: dict[str, Any] = {"model": name, "streams": STREAMS, "tokens": TOKENS}
    async with running("victim") as victim, running("bystander") as bystander:
        await asyncio.gather(victim.load(name), bystander.load(name))
        stage = Stage(
            victim=Side(victim.stub, name),
            bystander=Side(bystander.stub, name),
            tokens=TOKENS,
            tie=CLEAR,
        )
        await stage.rehearse()
        for fault in FAULTS:
            try:
                result[fault] = _row(await stage.strike(fault))
            except Exception as error:  # noqa: BLE001 - one that fails does not hide the others
                result[fault] = {"failed": f"{type(error).__name__}: {error}"[:500]}
    keep("faults", result)


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "ready_again_seconds": round(outcome.ready_again, 2),
        "another_process": outcome.is_new_process,
        "streams_ended_seconds": round(outcome.streams_ended, 2),
        "resumed": outcome.resumed,
        "equal_to_unbroken": outcome.equal,
        # How much likelier the choice was at which the others went another way.
        "margin_where_they_part": [round(margin, 4) for margin in outcome.parted_at],
        "ties_beside": outcome.beside_ties,
        "tokens_beside_meanwhile": outcome.beside_tokens,
        "longest_gap_beside": round(outcome.beside_gap, 3),
        "longest_gap_undisturbed": round(outcome.calm_gap, 3),
    }


if __name__ == "__main__":
    asyncio.run(main())
