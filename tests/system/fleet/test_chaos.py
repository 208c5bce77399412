"""A minute of what `python -m bench.chaos` does for ten."""

from __future__ import annotations

import pytest

from bench.chaos.faults import CUT, KILL, STOP, Fault
from bench.chaos.parts import KEY, fleet_of_two
from bench.chaos.run import torment
from bench.traffic.clients import SdkClients
from bench.traffic.load import Habits, Load

FAULTS = [Fault(KILL, "left"), Fault(STOP, "registry-1"), Fault(CUT, "gateway-1")]


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_clients_get_their_answers_whatever_dies(tmp_path, measured):
    async with (
        fleet_of_two(tmp_path) as parts,
        SdkClients(parts.url, key=KEY, patience_seconds=120.0) as clients,
    ):
        load = Load(clients, Habits(tokens=(20, 300)))
        await load.load_models()
        async with load.asking(8):
            rows = await torment(parts, load, FAULTS)

    for row in rows:
        measured(str(row))
    assert [str(one) for one in load.seen.not_whole()] == []
    assert all(row.whole is not None for row in rows)
