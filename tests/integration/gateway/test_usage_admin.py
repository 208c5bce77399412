"""`/admin/usage` before a real registry: all for who looks, one's own for everybody else."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from cortex.v1 import accounting_service_pb2 as pb
from services.gateway.settings import ApiKey, AuthSettings
from services.gateway.transports.upstream.settings import UpstreamSettings
from tests.doubles.registry_stand_ins import document, running_fleet
from tests.doubles.scripted_upstream import ScriptedUpstream
from tests.integration.gateway.fleet import Fleet

HOUR = 1_767_225_600
KEYS = (
    ApiKey("root", key="sk-root", console="view"),
    ApiKey("ada", key="sk-ada"),
)


@pytest.fixture
async def client(tmp_path: Any):
    rows = [
        pb.UsageRow(principal="ada", model="tiny", hour_unix_seconds=HOUR, requests=2),
        pb.UsageRow(principal="bob", model="tiny", hour_unix_seconds=HOUR + 3600, requests=5),
    ]
    async with running_fleet(document(tmp_path)) as registry:
        report = pb.ReportUsageRequest(holder="one", number=1, rows=rows)
        await registry.accounting.ReportUsage(report)
        fleet = Fleet()
        fleet.registry.address = registry.address
        await fleet.start_gateway(AuthSettings(keys=KEYS))
        try:
            yield fleet.client
        finally:
            await fleet.stop()


async def ask(client: httpx.AsyncClient, who: str, **query: str) -> httpx.Response:
    headers = {"authorization": f"Bearer sk-{who}"} if who else {}
    return await client.get("/admin/usage", params=query, headers=headers)


async def names(client: httpx.AsyncClient, who: str, **query: str) -> list[tuple[str, int]]:
    answer = await ask(client, who, **query)
    assert answer.status_code == 200, answer.text
    return [(row["principal"], row["requests"]) for row in answer.json()["rows"]]


async def test_who_looks_sees_everybody(client):
    assert await names(client, "root") == [("bob", 5), ("ada", 2)]
    assert await names(client, "root", key="ada") == [("ada", 2)]
    assert await names(client, "root", since=str(HOUR + 3600)) == [("bob", 5)]
    assert await names(client, "root", until=str(HOUR + 3600)) == [("ada", 2)]
    assert await names(client, "root", by="model") == [("", 7)]


async def test_everybody_else_sees_his_own(client):
    assert await names(client, "ada", by="key,hour") == [("ada", 2)]
    assert await names(client, "ada", key="ada") == [("ada", 2)]

    other = await ask(client, "ada", key="bob")

    assert other.status_code == 403


async def test_nobody_sees_anything_without_a_key(client):
    assert (await ask(client, "")).status_code == 401
    assert (await ask(client, "unknown")).status_code == 401


@pytest.mark.parametrize("query", [{"by": "colour"}, {"since": "monday"}, {"of": "ada"}])
async def test_what_is_not_understood_is_named(client, query):
    answer = await ask(client, "root", **query)

    assert answer.status_code == 400
    assert next(iter(query)) in answer.text


async def test_the_console_shows_what_was_used_before_the_gateway_began(tmp_path):
    hour = int(time.time()) // 3600 * 3600 - 2 * 3600
    row = pb.UsageRow(principal="ada", model="tiny", hour_unix_seconds=hour, requests=4)
    async with running_fleet(document(tmp_path)) as registry:
        report = pb.ReportUsageRequest(holder="killed", number=1, rows=[row])
        await registry.accounting.ReportUsage(report)
        fleet = Fleet()
        fleet.registry.address = registry.address
        await fleet.start_gateway(AuthSettings(keys=KEYS))
        try:
            headers = {"authorization": "Bearer sk-root"}
            async with asyncio.timeout(20):
                while not (await usage_table(fleet.client, headers))["rows"]:
                    await asyncio.sleep(0.05)
            table = await usage_table(fleet.client, headers)
        finally:
            await fleet.stop()

    assert [(row["name"], row["requests"]) for row in table["rows"]] == [("ada", 4)]
    assert table["since"] < hour


async def usage_table(client: httpx.AsyncClient, headers: dict[str, str]) -> Any:
    return (await client.get("/ui/usage?window=6h", headers=headers)).json()


async def gateway(registry: Any, far: ScriptedUpstream) -> Fleet:
    """A gateway of this registry, of which an upstream answers for a model."""
    fleet = Fleet()
    fleet.registry.address = registry.address
    there = UpstreamSettings(name="far", url=far.url, models=("big",))
    await fleet.start_gateway(AuthSettings(keys=KEYS), upstreams=(there,))
    fleet.client.headers["authorization"] = "Bearer sk-root"
    return fleet


async def stored(registry: Any) -> int:
    """How many requests the registry was told of."""
    rows = (await registry.accounting.GetUsage(pb.GetUsageRequest())).rows
    return sum(row.requests for row in rows)


async def test_each_request_counts_once_over_restarts_and_several_gateways(tmp_path):
    async with running_fleet(document(tmp_path)) as registry, ScriptedUpstream() as far:
        first = await gateway(registry, far)
        for _ in range(3):
            assert (await first.chat(model="big")).status_code == 200
        await first.stop()  # tells what it has served
        other = await gateway(registry, far)
        for _ in range(2):
            await other.chat(model="big")
        async with asyncio.timeout(20):
            while await stored(registry) < 5:
                await asyncio.sleep(0.05)
        again = await gateway(registry, far)
        try:
            headers = {"authorization": "Bearer sk-root"}
            asked, table = 0, await usage_table(again.client, headers)
            async with asyncio.timeout(30):
                while table["total"]["requests"] <= asked:  # it has recalled nothing yet
                    await again.chat(model="big")
                    asked += 1
                    table = await usage_table(again.client, headers)
                while await stored(registry) < 5 + asked:
                    await asyncio.sleep(0.05)
            last = await usage_table(again.client, headers)
        finally:
            await other.stop()
            await again.stop()

    assert table["total"]["requests"] == 5 + asked
    assert last["total"] == table["total"]
    assert {row["name"] for row in last["rows"]} == {"root"}
