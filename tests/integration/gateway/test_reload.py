"""What a running gateway takes in anew, on a signal, by an admin, or by itself: nothing is cut."""

from __future__ import annotations

import asyncio
import json
import pathlib
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.doubles.processes import free_port
from tests.doubles.scripted_neuron import Script, ScriptedNeuron
from tests.doubles.stand_in_registry import StandInRegistry
from tests.integration.gateway import gateway_process as harness
from tests.integration.gateway.fleet import chat_body, contents

SITE = {"origin": "https://chat.example"}
ADMIN = {"x-api-key": "sk-root"}
ROOT = '[[auth.keys]]\nname = "root"\nkey = "sk-root"\nconsole = "admin"\n'


@pytest.fixture
async def registry() -> AsyncIterator[StandInRegistry]:
    one = StandInRegistry()
    await one.start()
    neuron = ScriptedNeuron("n1")
    neuron.scripts = [Script(gap=0.3)]
    await neuron.start()
    one.add_model("tiny")
    one.put(neuron.described())
    yield one
    await neuron.stop()
    await one.stop()


def certificate(folder: pathlib.Path, name: str) -> None:
    """Puts another certificate in the place of the one that is there: key and chain in turn."""
    made = folder / name
    made.mkdir()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-keyout", str(made / "key.pem"), "-out", str(made / "chain.pem")),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )


async def shown(port: int) -> str:
    """The certificate that a new client is shown, in PEM."""
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))


async def test_a_certificate_is_taken_in_when_its_files_change(gateway, registry, tmp_path):
    port = free_port()
    certificate(tmp_path, "first")
    certificate(tmp_path, "second")
    for name in ("key.pem", "chain.pem"):
        shutil.copy(tmp_path / "first" / name, tmp_path / name)
    tls = f'[gateway.tls]\ncertificate = "{tmp_path}/chain.pem"\nkey = "{tmp_path}/key.pem"\n'
    await gateway.start(harness.settings(registry.address, port=port) + tls)
    await gateway.line("gateway.started")
    before = await shown(port)
    trust = ssl.create_default_context(cafile=tmp_path / "first" / "chain.pem")
    async with httpx.AsyncClient(trust_env=False, verify=trust, timeout=harness.SECONDS) as client:
        url = f"https://127.0.0.1:{port}/v1/chat/completions"
        async with client.stream("POST", url, json=chat_body(stream=True)) as running:
            shutil.copy(tmp_path / "second" / "key.pem", tmp_path / "key.pem")
            refused = await gateway.line("certificate.refused")
            shutil.copy(tmp_path / "second" / "chain.pem", tmp_path / "chain.pem")
            await gateway.line("certificate.reloaded")
            said = contents((await running.aread()).decode())
        again = await client.post(url, json=chat_body())  # on the connection that is there

    assert "The old one is shown" in refused
    assert (tmp_path / "first" / "chain.pem").read_text().strip() == before.strip()
    assert (tmp_path / "second" / "chain.pem").read_text().strip() == (await shown(port)).strip()
    assert "Hello world" == "".join(said)
    assert 200 == again.status_code


async def allowed(client: httpx.AsyncClient, port: int) -> bool:
    headers = {**SITE, "access-control-request-method": "POST"}
    url = f"http://127.0.0.1:{port}/v1/models"
    answer = await client.options(url, headers=headers)
    return answer.headers.get("access-control-allow-origin") == SITE["origin"]


async def test_a_hangup_takes_in_origins_limits_and_the_level(gateway, registry):
    port = free_port()
    text = harness.settings(registry.address, port=port)
    await gateway.start(text + ROOT)
    await harness.ready(port)
    async with httpx.AsyncClient(trust_env=False, timeout=harness.SECONDS) as client:
        before = await allowed(client, port)
        asked = await client.get(f"http://127.0.0.1:{port}/v1/models", headers={**ADMIN, **SITE})
        more = f'cors_origins = ["{SITE["origin"]}"]\n[log]\nlevel = "error"\n'
        changed = text.replace("[log]\n", more) + ROOT + "limits = { requests_per_minute = 0 }\n"
        gateway.write(changed.replace('level = "error"', 'level = "info"'))
        gateway.process.send_signal(signal.SIGHUP)
        told = json.loads(await gateway.line("settings.reloaded"))
        after = await allowed(client, port)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        limited = await client.post(url, json=chat_body(), headers={**ADMIN, **SITE})
        gateway.write(changed.replace(f'"{SITE["origin"]}"', ""))
        gateway.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.5)  # the log says nothing any more
        taken_back = await allowed(client, port)

    assert (False, 403) == (before, asked.status_code)
    assert after
    assert ["auth.keys", "gateway.cors_origins", "log.level"] == told["changed"]
    assert [] == told["needs_restart"]
    assert 429 == limited.status_code
    assert limited.headers["access-control-allow-origin"] == SITE["origin"]
    assert not taken_back
    gateway.process.send_signal(signal.SIGTERM)
    assert 0 == (await gateway.ended())[0]


async def cortex(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.slow
async def test_cortex_reload_gateway_says_what_was_taken_in(gateway, registry):
    port = free_port()
    text = harness.settings(registry.address, port=port) + ROOT
    await gateway.start(text)
    await harness.ready(port)
    words: tuple[Any, ...] = ("reload", "gateway", "--gateway", f"http://127.0.0.1:{port}")
    gateway.write(text.replace("[log]", "attempts = 2\ncors_origins = ['https://a.b']\n[log]"))

    stranger = await cortex(*words)
    taken = await cortex(*words, "--api-key", "sk-root")
    gateway.write("[gateway")
    refused = await cortex(*words, "--api-key", "sk-root")

    assert 1 == stranger[0]
    assert (0, "changed: gateway.cors_origins\nneeds restart: gateway.attempts\n") == taken
    assert 1 == refused[0]
    assert "Nothing was changed" in refused[1]


@pytest.mark.slow
async def test_a_reload_by_one_worker_reaches_all(gateway, registry):
    port = free_port()
    text = harness.settings(registry.address, port=port, more="workers = 2") + ROOT
    await gateway.start(text)
    await harness.ready(port)
    for _ in range(2):
        await gateway.line("gateway.started")

    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/admin/reload"
        answer = await client.post(url, json={}, headers=ADMIN)

    assert 200 == answer.status_code
    for _ in range(2):
        await gateway.line("settings.reloaded")
