"""Upstreams of a gateway that runs: what a reload takes in, and what goes on."""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.gateway.transports.upstream.settings import UpstreamSettings
from tests.doubles.processes import free_port
from tests.doubles.scripted_upstream import Answer, ScriptedUpstream
from tests.doubles.stand_in_registry import StandInRegistry
from tests.integration.gateway import gateway_process as harness
from tests.integration.gateway.fleet import Fleet, chat_body
from tests.integration.gateway.gateway_process import Process


@pytest.fixture
async def far() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as one:
        yield one


def upstream(far: ScriptedUpstream, name: str, **more: Any) -> UpstreamSettings:
    return UpstreamSettings(name=name, url=far.url, **{"models": (name,), **more})


async def test_answers_go_on_where_an_upstream_is_taken_out(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    stays, goes = upstream(far, "stays"), upstream(far, "goes")
    await bare.start(upstreams=(stays, goes))
    upstreams = bare.gateway._upstreams
    kept = upstreams.serving("stays")
    gate = asyncio.Event()
    far.answers = [Answer(head_gate=gate)]
    asking = asyncio.create_task(bare.chat(model="goes"))
    await far.until(lambda: far.open == 1)

    upstreams.use((upstream(far, "comes"), stays))
    gone = await bare.chat(model="goes")
    gate.set()

    async with asyncio.timeout(20):
        assert 200 == (await asking).status_code
        assert 404 == gone.status_code
        assert 200 == (await bare.chat(model="comes")).status_code
        while upstreams._leaving:
            await asyncio.sleep(0.01)
    assert kept == upstreams.serving("stays")


async def test_a_hangup_takes_upstreams_and_new_keys_in(
    gateway: Process, far: ScriptedUpstream, tmp_path: pathlib.Path
) -> None:
    registry = StandInRegistry()
    await registry.start()
    port, key = free_port(), tmp_path / "key"
    key.write_text("sk-first")
    text = harness.settings(registry.address, port=port)
    entry = (
        "[[gateway.upstreams]]\n"
        f'name = "far"\nurl = "{far.url}"\nkey_file = "{key}"\nmodels = ["big"]\n'
    )
    await gateway.start(text)
    await harness.ready(port)
    url = f"http://127.0.0.1:{port}/v1/chat/completions"

    async def reload(settings: str, event: str) -> dict[str, Any]:
        gateway.write(settings)
        gateway.process.send_signal(signal.SIGHUP)
        return json.loads(await gateway.line(event))

    async with httpx.AsyncClient(trust_env=False, timeout=harness.SECONDS) as client:
        before = await client.post(url, json=chat_body(model="big"))
        told = await reload(text + entry, "settings.reloaded")
        first = await client.post(url, json=chat_body(model="big"))
        key.write_text("sk-second")
        await reload(text + entry, "settings.reloaded")
        second = await client.post(url, json=chat_body(model="big"))
        key.unlink()
        refused = await reload(text + entry, "settings.refused")
        third = await client.post(url, json=chat_body(model="big"))

    assert ["gateway.upstreams"] == told["changed"]
    assert [404, 200, 200, 200] == [o.status_code for o in (before, first, second, third)]
    sent = [one.headers["authorization"] for one in far.asked]
    assert ["Bearer sk-first", "Bearer sk-second", "Bearer sk-second"] == sent
    assert "key_file" in refused["detail"]
    await registry.stop()
