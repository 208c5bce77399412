"""AccountingService over real gRPC, with every store: what was answered is there after a restart."""

from __future__ import annotations

import time
from typing import Any

import grpc
import psycopg
import pytest

from cortex.v1 import accounting_service_pb2 as pb
from cortex.v1.neuron_service_pb2 import DeviceUse
from cortex.v1.registry_service_pb2 import WatchFleetRequest
from services.backplane.errors import Reason
from services.backplane.rpc.status import from_rpc_error
from services.backplane.security.principals import SYSTEM
from tests.doubles.registry_neuron import ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import document, running_fleet

# Lately: what was used long ago is not kept.
HOUR = int(time.time()) // 3600 * 3600
TABLES = (
    "cortex_facts, cortex_leader, cortex_shares, cortex_usage, cortex_usage_holders,"
    " cortex_device_use, cortex_device_sources, cortex_device_energy, cortex_energy_sources"
)


@pytest.fixture(params=["sqlite", "postgres", "kubernetes"])
def settings(request, tmp_path):
    """Settings of a registry, with each store; each test has one of its own."""
    if request.param == "sqlite":
        yield document(tmp_path)
        return
    if request.param == "kubernetes":
        yield document(tmp_path, store=request.getfixturevalue("kubernetes"))
        return
    server = request.getfixturevalue("server")
    yield document(tmp_path, store=server)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLES}")


def claim(**fields: Any) -> pb.AllowanceClaim:
    usual: dict[str, Any] = {
        "principal": "ada",
        "meter": pb.METER_TOKENS,
        "period": pb.PERIOD_MONTH,
        "window_starts_unix_seconds": 1_767_225_600,
        "window_ends_unix_seconds": 4_000_000_000,
        "limit": 1000,
    }
    return pb.AllowanceClaim(**usual | fields)


async def lease(fleet: Any, holder: str, *claims: pb.AllowanceClaim) -> list[tuple[int, int]]:
    request = pb.LeaseAllowancesRequest(holder=holder, claims=claims)
    answer = await fleet.accounting.LeaseAllowances(request)
    return [(one.granted, one.left) for one in answer.grants]


async def test_two_gateways_share_a_limit_over_a_restart(settings):
    async with running_fleet(settings) as fleet:
        assert await lease(fleet, "one", claim(used=100, wanted=400)) == [(400, 600)]
        streams = claim(meter=pb.METER_STREAMS, period=pb.PERIOD_ALWAYS, limit=4, wanted=3)
        assert await lease(fleet, "one", streams) == [(3, 1)]
    async with running_fleet(settings) as fleet:
        assert await lease(fleet, "two", claim(wanted=900)) == [(600, 0)]
        assert await lease(fleet, "one", claim(used=300, wanted=300)) == [(300, 100)]


async def test_a_report_counts_once_over_a_restart(settings):
    row = pb.UsageRow(principal="ada", model="tiny", hour_unix_seconds=HOUR, prompt_tokens=7)
    report = pb.ReportUsageRequest(holder="one", number=1, rows=[row])
    async with running_fleet(settings) as fleet:
        await fleet.accounting.ReportUsage(report)
    async with running_fleet(settings) as fleet:
        await fleet.accounting.ReportUsage(report)
        asked = pb.GetUsageRequest(by=[pb.USAGE_KEY_PRINCIPAL, pb.USAGE_KEY_HOUR])
        answer = await fleet.accounting.GetUsage(asked)

    expected = pb.UsageRow(principal="ada", hour_unix_seconds=HOUR, prompt_tokens=7)
    assert list(answer.rows) == [expected]


async def test_what_neurons_have_measured_counts_once_over_a_restart(settings):
    neuron = ScriptedNeuron("alpha")
    neuron.device_use = [
        DeviceUse(
            principal="ada",
            model="tiny",
            prefill_microseconds=30,
            decode_microseconds=70,
            millijoules=12,
        ),
        DeviceUse(principal=SYSTEM, model="tiny", load_microseconds=500),
    ]
    by = [pb.USAGE_KEY_PRINCIPAL, pb.USAGE_KEY_MODEL]

    async def used(fleet: Any) -> dict[str, tuple[int, ...]]:
        answer = await fleet.accounting.GetUsage(pb.GetUsageRequest(by=by))
        return {
            row.principal: (
                row.prompt_tokens,
                row.prefill_microseconds,
                row.decode_microseconds,
                row.load_microseconds,
                row.millijoules,
            )
            for row in answer.rows
        }

    async def told(fleet: Any) -> bool:
        return len(await used(fleet)) > 1

    async with running_fleet(settings) as fleet:
        row = pb.UsageRow(principal="ada", model="tiny", hour_unix_seconds=HOUR, prompt_tokens=7)
        report = pb.ReportUsageRequest(holder="one", number=1, rows=[row])
        await fleet.accounting.ReportUsage(report)
        await fleet.add(neuron)
        await eventually(lambda: told(fleet))
        watched = fleet.registry.WatchFleet(WatchFleetRequest())
        seen = str(await anext(aiter(watched)))
        watched.cancel()
    async with running_fleet(settings) as fleet:
        neuron.device_use[0].decode_microseconds = 90
        neuron.device_use[0].millijoules = 15

        async def has_grown() -> bool:
            return (await used(fleet))["ada"][2] == 90

        await fleet.add(neuron)
        await eventually(has_grown)
        found = await used(fleet)

    assert found == {"ada": (7, 30, 90, 0, 15), SYSTEM: (0, 0, 0, 500, 0)}
    assert "ada" not in seen  # gateways are not told who uses what


async def test_nothing_was_used_yet(settings):
    async with running_fleet(settings) as fleet:
        for by in ([], [pb.USAGE_KEY_MODEL]):
            assert not (await fleet.accounting.GetUsage(pb.GetUsageRequest(by=by))).rows


@pytest.mark.parametrize(
    ("method", "request_of", "field"),
    [
        ("LeaseAllowances", pb.LeaseAllowancesRequest(), "holder"),
        (
            "LeaseAllowances",
            pb.LeaseAllowancesRequest(holder="one", claims=[pb.AllowanceClaim()]),
            "claims.0",
        ),
        (
            "LeaseAllowances",
            pb.LeaseAllowancesRequest(holder="one", claims=[claim(limit=2**60)]),
            "claims.0",
        ),
        ("ReportUsage", pb.ReportUsageRequest(holder="one"), "number"),
        ("GetUsage", pb.GetUsageRequest(by=[pb.USAGE_KEY_UNSPECIFIED]), "by"),
        ("GetUsage", pb.GetUsageRequest(since_unix_seconds=2**60), "since_unix_seconds"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(tmp_path, method, request_of, field):
    async with running_fleet(document(tmp_path)) as fleet:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(fleet.accounting, method)(request_of)

    error = from_rpc_error(refused.value)
    assert (error.reason, error.field) == (Reason.BAD_REQUEST, field)
