"""Faults in turn, under load."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Final

from bench.chaos.faults import CUT, KILL, STOP, Fault
from bench.chaos.parts import Parts, holds
from bench.chaos.report import Row
from bench.traffic.exchange import Outcome, within
from bench.traffic.load import Load

# A killed process is started again as a service manager does. The others come back when they have
# been missed: gRPC gives a silent connection up after 15 seconds, the store a leader after five.
SECONDS: Final = {KILL: 2.0, STOP: 20.0, CUT: 20.0}
_REST_SECONDS: Final = 3.0


async def torment(parts: Parts, load: Load, faults: Sequence[Fault]) -> list[Row]:
    """Does one after the other and waits for the fleet to be whole in between."""
    rows: list[Row] = []
    for fault in faults:
        rows.append(await _one(parts, load, fault))
        print(rows[-1], flush=True)
    return rows


async def _one(parts: Parts, load: Load, fault: Fault) -> Row:
    row = Row(fault)
    began = time.monotonic()
    undo = await fault.begin(parts)
    done = time.monotonic()
    try:
        await asyncio.sleep(SECONDS[fault.what])
    finally:
        await undo()
    undone = time.monotonic()
    try:
        await holds(parts.is_whole)
        row.whole = time.monotonic() - undone
    except TimeoutError as error:
        print(f"{fault}: {error}", file=sys.stderr)
    await asyncio.sleep(_REST_SECONDS)
    row.exchanges = within(load.seen.exchanges, began, time.monotonic())
    after = [one for one in row.exchanges if one.began > done and one.outcome is Outcome.WHOLE]
    row.answered = min((one.first_piece - done for one in after), default=None)
    for one in row.exchanges:
        if one.outcome is not Outcome.WHOLE:
            print(f"{fault}: {one.began - done:+.1f} s {one}", file=sys.stderr)
    return row
