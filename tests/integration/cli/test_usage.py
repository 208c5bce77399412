"""`cortex usage` before a real registry."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sys

import pytest
from rich.console import Console

from cortex.v1 import accounting_service_pb2 as pb
from cortex.v1.neuron_service_pb2 import DeviceUse
from services.cli.commands.fleet import usage_table
from tests.doubles.registry_neuron import ScriptedNeuron
from tests.doubles.registry_stand_ins import document, running_fleet

HOUR = 1_767_225_600  # 2026-01-01
ROWS = [
    pb.UsageRow(
        principal="ada",
        model="tiny",
        hour_unix_seconds=HOUR,
        requests=2,
        prompt_tokens=70,
        completion_tokens=5,
    ),
    pb.UsageRow(principal="bob", model="tiny", hour_unix_seconds=HOUR + 3600, prompt_tokens=90),
]


@pytest.fixture
async def cortex(tmp_path):
    """Runs `cortex usage …`: its exit code, and what it writes."""
    async with running_fleet(document(tmp_path)) as fleet:
        await fleet.accounting.ReportUsage(pb.ReportUsageRequest(holder="one", number=1, rows=ROWS))

        async def ran(*words: str) -> tuple[int, str]:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.cli", "usage", *words),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "200", "CORTEX_REGISTRY_ADDRESS": fleet.address},
            )
            output, _ = await process.communicate()
            return process.returncode or 0, output.decode()

        yield ran


async def test_usage_as_table_values_and_json(cortex):
    since = ("--since", "2026-01-01")
    _, table = await cortex(*since)
    code, values = await cortex(*since, "--by", "model", "--by", "hour", "--csv")
    _, one = await cortex(*since, "--key", "ada", "--json")

    assert code == 0
    assert table.index("bob") < table.index("ada")
    first, second = csv.DictReader(io.StringIO(values))
    assert (first["model"], first["hour"]) == ("tiny", "2026-01-01T00:00Z")
    assert (first["prompt_tokens"], first["completion_tokens"]) == ("70", "5")
    assert second["hour"] == "2026-01-01T01:00Z"
    (row,) = json.loads(one)["rows"]
    assert row["principal"] == "ada"


async def test_joules_are_shown_where_devices_tell_their_energy(tmp_path):
    neuron = ScriptedNeuron("alpha")
    use = DeviceUse(principal="ada", model="tiny", decode_microseconds=10**6, millijoules=250_125)
    neuron.device_use = [use]
    async with running_fleet(document(tmp_path)) as fleet:
        await fleet.accounting.ReportUsage(pb.ReportUsageRequest(holder="one", number=1, rows=ROWS))

        async def told(*, energy: bool) -> str:
            by = [pb.USAGE_KEY_PRINCIPAL]
            while True:
                rows = (await fleet.accounting.GetUsage(pb.GetUsageRequest(by=by))).rows
                if any(row.millijoules for row in rows) == energy:
                    with Console(width=200) as console, console.capture() as shown:
                        console.print(usage_table(rows, ["key"]))
                    return shown.get()
                await asyncio.sleep(0.05)

        async with asyncio.timeout(60):
            before = await told(energy=False)
            await fleet.add(neuron)
            after = await told(energy=True)

    assert "joules" not in before
    assert "joules" in after
    (ada,) = [line for line in after.splitlines() if "ada" in line]
    (bob,) = [line for line in after.splitlines() if "bob" in line]
    assert "250.125" in ada
    assert "0.000" in bob
    assert "250.125" not in bob


async def test_what_is_not_understood_is_said_in_a_line(cortex):
    by, told = await cortex("--by", "colour")
    since, also = await cortex("--since", "monday")

    assert (by, since) == (1, 1)
    assert "key, model, hour" in told
    assert "2026-11-01" in also
