"""Whose time it is: what keys are charged is what the worker of a real model was busy."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

import httpx
import pytest

from cortex.v1 import accounting_service_pb2 as pb
from cortex.v1 import accounting_service_pb2_grpc as accounting_grpc
from tests.system.fleet.conftest import BRISK, BUDGET
from tests.system.fleet.processes import PATIENCE_SECONDS, Fleet, until

pytestmark = pytest.mark.timeout(600)

KINDS = ("prefill", "decode", "load", "unload")
KEYS = "".join(
    f"""
[[auth.keys]]
name = "{name}"
key = "sk-{name}"
{limits}
"""
    for name, limits in (
        ("ada", ""),
        ("bob", ""),
        ("cid", ""),
        ("dan", "limits = { gpu_seconds_per_day = 0.4 }"),
    )
)


def client(fleet: Fleet, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=fleet.url,
        trust_env=False,
        timeout=PATIENCE_SECONDS,
        headers={"authorization": f"Bearer sk-{key}"},
    )


def body(model: str, tokens: int, words: int = 5, **fields: Any) -> dict[str, Any]:
    said = "How are you today? " * words
    messages = [{"role": "user", "content": said}]
    return {"model": model, "messages": messages, "max_tokens": tokens, **fields}


async def ask(fleet: Fleet, key: str, model: str, tokens: int, words: int = 5) -> int:
    """One whole answer; its status."""
    async with client(fleet, key) as http:
        request = body(model, tokens, words)
        return (await http.post("/v1/chat/completions", json=request)).status_code


async def leave(fleet: Fleet, key: str, model: str) -> None:
    """Reads the beginning of a long answer and goes."""
    request = body(model, 20_000, stream=True)
    async with (
        client(fleet, key) as http,
        http.stream("POST", "/v1/chat/completions", json=request) as answer,
    ):
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        for _ in range(20):
            await anext(lines)


def usage(fleet: Fleet) -> dict[str, dict[str, float]]:
    """The device seconds of each key, by kind."""
    request = pb.GetUsageRequest(by=[pb.USAGE_KEY_PRINCIPAL])
    with fleet.channel(fleet.registries[0]) as channel:
        rows = accounting_grpc.AccountingServiceStub(channel).GetUsage(request, timeout=5).rows
    return {
        row.principal: {kind: getattr(row, f"{kind}_microseconds") / 1e6 for kind in KINDS}
        for row in rows
    }


def told_by_the_command(fleet: Fleet) -> dict[str, dict[str, float]]:
    """The same by `cortex usage`."""
    table = csv.DictReader(io.StringIO(fleet.cli("usage", "--csv").stdout))
    return {row["key"]: {kind: float(row[f"{kind}_seconds"]) for kind in KINDS} for row in table}


def busy_seconds(fleet: Fleet) -> float:
    state = fleet.state()
    assert state is not None
    return sum(one.report.busy_microseconds for one in state.neurons) / 1e6


@pytest.fixture
def metered(fleet: Fleet) -> Fleet:
    fleet.add_registry(settings=BRISK)
    fleet.add_neuron("left", settings=BUDGET)
    fleet.add_gateway(settings=KEYS)
    fleet.wait("left")
    return fleet


async def test_what_keys_are_charged_is_what_the_devices_worked(
    metered: Fleet, measured: Any
) -> None:
    assert await ask(metered, "ada", "alpha", 10) == 200
    await asyncio.gather(
        ask(metered, "ada", "alpha", 50, words=30),
        ask(metered, "bob", "alpha", 100),
        leave(metered, "bob", "alpha"),
    )
    assert await ask(metered, "cid", "bravo", 100) == 200  # for which alpha has to go

    def is_told() -> bool:
        by_key = usage(metered)
        charged = sum(sum(kinds.values()) for kinds in by_key.values())
        are_all = all(by_key.get(name, {}).get("decode") for name in ("ada", "bob", "cid"))
        return are_all and charged > 0.98 * busy_seconds(metered) > 0

    until(is_told, 30)
    by_key = usage(metered)
    charged = sum(sum(kinds.values()) for kinds in by_key.values())
    busy = busy_seconds(metered)

    measured(f"charged {charged:.3f} s of {busy:.3f} s of devices: {by_key}")
    assert charged == pytest.approx(busy, rel=0.02)
    assert all(by_key[name]["decode"] > 0 for name in ("ada", "bob", "cid"))
    assert by_key["ada"]["load"] > 0
    assert by_key["cid"]["load"] > 0
    assert by_key["cid"]["unload"] > 0
    assert by_key["bob"]["load"] == by_key["bob"]["unload"] == 0
    assert told_by_the_command(metered)["ada"] == pytest.approx(by_key["ada"], abs=0.001)


async def test_a_budget_of_gpu_seconds_is_held_to(metered: Fleet) -> None:
    assert await ask(metered, "ada", "alpha", 10) == 200  # it is loaded at another's expense

    async with client(metered, "dan") as http:
        for _ in range(200):
            answer = await http.post("/v1/chat/completions", json=body("alpha", 200))
            if answer.status_code != 200:
                break
    others = await ask(metered, "ada", "alpha", 10)

    assert answer.status_code == 429
    error = answer.json()["error"]
    assert error["code"] == "insufficient_quota"
    assert "gpu_seconds_per_day" in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert others == 200
    until(lambda: sum(usage(metered).get("dan", {}).values()) > 0.1, 30)
