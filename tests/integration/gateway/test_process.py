"""The gateway as a process of its own: start, several workers, signals, and mistakes."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import re
import signal
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.doubles.processes import free_port
from tests.doubles.scripted_neuron import Script, ScriptedNeuron
from tests.doubles.stand_in_registry import StandInRegistry
from tests.integration.gateway.fleet import chat_body, contents
from tests.integration.gateway.gateway_process import SECONDS, Process, ready, settings


@pytest.fixture
async def registry() -> AsyncIterator[StandInRegistry]:
    one = StandInRegistry()
    await one.start()
    neuron = ScriptedNeuron("n1")
    await neuron.start()
    one.add_model("tiny")
    one.put(neuron.described())
    yield one
    await neuron.stop()
    await one.stop()


def runners(folder: pathlib.Path) -> int:
    return len(list(folder.glob("responses.sqlite.runner-*")))


async def counted(client: httpx.AsyncClient, port: int) -> float:
    """Answered chats, added up over all workers."""
    exposed = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    pattern = r'requests_total\{dialect="openai_chat",.*outcome="completed",status="200"\} (\S+)'
    return sum(float(one) for one in re.findall(pattern, exposed))


@pytest.mark.slow
async def test_workers_end_when_their_keeper_was_killed(
    gateway: Process, registry: StandInRegistry
) -> None:
    port = free_port()
    await gateway.start(settings(registry.address, port=port, more="workers = 2"))
    await ready(port)

    gateway.process.kill()

    # their standard error is the keeper's: it ends when the last of them has
    assert "the keeper has gone" in (await gateway.ended())[1]


@pytest.mark.slow
async def test_a_process_serves_and_ends_well(gateway: Process, registry: StandInRegistry) -> None:
    port = free_port()
    await gateway.start(settings(registry.address, port=port))
    await ready(port)

    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=chat_body())
    gateway.process.send_signal(signal.SIGTERM)
    code, log = await gateway.ended()

    assert answer.json()["choices"][0]["message"]["content"] == "Hello world"
    assert code == 0
    assert log.count('"request.finished"') == 1 + log.count("/readyz")
    assert "Traceback" not in log


@pytest.mark.slow
async def test_workers_share_a_socket_and_are_replaced(
    gateway: Process, registry: StandInRegistry
) -> None:
    port, metrics = free_port(), free_port()
    more = "workers = 2\ndrain_seconds = 2\n"
    text = settings(registry.address, port=port, more=more)
    await gateway.start(
        text.replace('metrics_listen = ""', f'metrics_listen = "127.0.0.1:{metrics}"')
    )
    first = await gateway.line('"worker.started"')
    await ready(port)

    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(10):
            body = chat_body(stream=True)
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            answer = await client.post(url, json=body, headers={"connection": "close"})
            assert "".join(contents(answer.text)) == "Hello world"
        async with asyncio.timeout(SECONDS):
            while await counted(client, metrics) != 10:
                await asyncio.sleep(0.05)

    found = re.search(r'"pid":(\d+)', first)
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)
    await gateway.line('"worker.died"')
    await gateway.line('"worker.started"')
    gateway.process.send_signal(signal.SIGTERM)
    assert (await gateway.ended())[0] == 0


async def test_a_hangup_takes_in_keys_and_cuts_no_stream(
    gateway: Process, registry: StandInRegistry
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    text = settings(registry.address, port=port)

    def keys(name: str) -> str:
        return f'[[auth.keys]]\nname = "{name}"\nkey = "sk-{name}"\n'

    def headers(name: str) -> dict[str, str]:
        return {"authorization": f"Bearer sk-{name}"}

    slow = ScriptedNeuron("n2", ["slow"])
    slow.scripts = [Script(gap=0.5)]
    await slow.start()
    registry.add_model("slow")
    registry.put(slow.described())
    await gateway.start(text + keys("old"))
    await ready(port)
    async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
        asked = chat_body(model="slow", stream=True)
        async with client.stream("POST", url, json=asked, headers=headers("old")) as running:
            gateway.write(text.replace("[log]", "attempts = 2\n[log]") + keys("new"))
            gateway.process.send_signal(signal.SIGHUP)
            told = json.loads(await gateway.line("settings.reloaded"))
            said = contents((await running.aread()).decode())
        statuses = [
            (await client.post(url, json=chat_body(), headers=headers(name))).status_code
            for name in ("old", "new")
        ]
    gateway.write("[gateway")
    gateway.process.send_signal(signal.SIGHUP)
    refused = await gateway.line("settings.refused")
    gateway.process.send_signal(signal.SIGTERM)
    await slow.stop()

    assert "".join(said) == "Hello world"
    assert statuses == [401, 200]
    assert (told["changed"], told["needs_restart"]) == (["auth.keys"], ["gateway.attempts"])
    assert "sk-" not in json.dumps(told)
    assert "cortex.toml" in refused
    assert (await gateway.ended())[0] == 0


async def test_a_hangup_reaches_every_worker(gateway: Process, registry: StandInRegistry) -> None:
    port = free_port()
    await gateway.start(settings(registry.address, port=port, more="workers = 2"))
    await ready(port)
    for _ in range(2):
        await gateway.line("gateway.started")

    gateway.process.send_signal(signal.SIGHUP)

    for _ in range(2):
        await gateway.line("settings.reloaded")
    gateway.process.send_signal(signal.SIGTERM)
    code, log = await gateway.ended()
    assert code == 0
    assert "worker.died" not in log


@pytest.mark.slow
async def test_a_taken_port_is_one_clear_line(gateway: Process) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        await gateway.start(settings("127.0.0.1:1", port=taken.getsockname()[1]))
        code, log = await gateway.ended()

    assert code == 69
    assert "cannot listen on 127.0.0.1" in log
    assert "Traceback" not in log


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "workers = 2"])
async def test_a_mistake_in_the_settings_is_one_clear_line(gateway: Process, more: str) -> None:
    await gateway.start(settings("nowhere", more=more))
    code, log = await gateway.ended()

    assert code == 78
    assert "nowhere" in log
    assert len(log.strip().splitlines()) == 1


async def test_what_a_killed_gateway_ran_in_the_background_has_failed(
    gateway: Process, tmp_path: pathlib.Path, registry: StandInRegistry
) -> None:
    """Another that shares its store says so at once, and so does its successor."""
    slow = ScriptedNeuron("n2", ["slow"])
    slow.scripts = [Script(silent=True)]
    await slow.start()
    registry.add_model("slow")
    registry.put(slow.described())
    ports = [free_port(), free_port()]
    shared = f'responses_file = "{tmp_path / "responses.sqlite"}"'
    other = Process(tmp_path, "other.toml")
    await gateway.start(settings(registry.address, port=ports[0], more=shared))
    await other.start(settings(registry.address, port=ports[1], more=shared))
    await asyncio.gather(*(ready(port) for port in ports))

    async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
        where = [f"http://127.0.0.1:{port}/v1/responses" for port in ports]
        asked = {"model": "slow", "input": "Hi", "background": True}
        made = (await client.post(where[0], json=asked)).json()
        before = (await client.get(f"{where[1]}/{made['id']}")).json()
        gateway.process.kill()
        await gateway.process.wait()
        after = (await client.get(f"{where[1]}/{made['id']}")).json()
        other.process.kill()
        await other.process.wait()
        await gateway.start(settings(registry.address, port=ports[0], more=shared))
        await ready(ports[0])
        again = (await client.get(f"{where[0]}/{made['id']}")).json()
    await slow.stop()

    assert [before["status"], after["status"]] == ["in_progress", "failed"]
    assert "ended before the response did" in after["error"]["message"]
    assert again == after
    assert runners(tmp_path) == 1, "only that of the one that runs"


async def test_a_successor_ends_what_a_killed_gateway_has_left(
    gateway: Process, tmp_path: pathlib.Path, registry: StandInRegistry
) -> None:
    slow = ScriptedNeuron("n2", ["slow"])
    slow.scripts = [Script(silent=True)]
    await slow.start()
    registry.add_model("slow")
    registry.put(slow.described())
    port = free_port()
    shared = f'responses_file = "{tmp_path / "responses.sqlite"}"'
    await gateway.start(settings(registry.address, port=port, more=shared))
    await ready(port)
    async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
        asked = {"model": "slow", "input": "Hi", "background": True}
        made = (await client.post(f"http://127.0.0.1:{port}/v1/responses", json=asked)).json()
    gateway.process.kill()
    await gateway.process.wait()

    await gateway.start(settings(registry.address, port=port, more=shared))

    assert made["id"] in await gateway.line("response.lost")
    await slow.stop()
