"""The dashboard and the alerts in `deploy/`, on a real Prometheus that scrapes a real fleet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.doubles.processes import free_port
from tests.doubles.scripted_upstream import ScriptedUpstream
from tests.system.fleet.clients import Clients, two_loaded
from tests.system.fleet.conftest import BRISK, BUDGET
from tests.system.fleet.processes import Fleet, until

DEPLOY = pathlib.Path("deploy").absolute()
RULES = DEPLOY / "prometheus" / "cortex.rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "cortex.json").read_text())
# Only devices with a driver that measures have these: none here.
NEEDS_A_GPU = {"How busy", "Temperature", "Power", "Joules per token", "Joules per request"}
TWO_MINUTES = 120.0
UPSTREAM_PORT = free_port()
pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs Prometheus and promtool (Debian's package `prometheus`)",
)


def expressions() -> list[tuple[str, str]]:
    """Every panel's title and queries, with the dashboard's variables put in."""
    return [
        (panel["title"], each["expr"].replace("$model", ".*").replace("$__rate_interval", "20s"))
        for panel in DASHBOARD["panels"]
        for each in panel.get("targets", ())
    ]


async def ask(client: httpx.AsyncClient, url: str, model: str) -> None:
    """Asks a model something; whatever comes of it."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi."}]}
    await client.post(f"{url}/v1/chat/completions", json=body)


class Prometheus:
    """One Prometheus, asked over its HTTP API."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/api/v1"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression is now."""
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"{self._url}/query", params={"query": expression}).json()
            assert answer["status"] == "success", answer
            found: list[dict[str, Any]] = answer["data"]["result"]
            return found
        return []

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        found = self.query('ALERTS{alertstate="firing"}')
        return {each["metric"]["alertname"] for each in found}


@pytest.fixture
def watched(fleet: Fleet, tmp_path: pathlib.Path) -> Iterator[tuple[Fleet, Prometheus]]:
    """A fleet of two neurons, and a Prometheus that scrapes all of it every second."""
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("gateway", "registry", "left", "right")}
    fleet.models += f'\n[[models]]\nid = "bad"\nsource = "path:{tmp_path / "bad.gguf"}"\n'
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    fleet.add_registry(settings=BRISK, metrics=ports["registry"])
    for name in ("left", "right"):
        fleet.add_neuron(name, settings=BUDGET, metrics=ports[name])
    away = f'name = "away"\nurl = "http://127.0.0.1:{UPSTREAM_PORT}/v1"\nmodels = ["far"]'
    fleet.add_gateway(metrics=ports["gateway"], settings=f"[[gateway.upstreams]]\n{away}\n")
    other = free_port()
    targets = {
        "cortex-gateway": [ports["gateway"], f"127.0.0.1:{other}"],
        "cortex-registry": [ports["registry"]],
        "cortex-neuron": [ports["left"], ports["right"]],
    }
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": each}]}
            for job, each in targets.items()
        ],
    }
    path = tmp_path / "prometheus.yml"
    path.write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={path}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        fleet.wait("left", "right")
        # a second gateway, which no registry is known to
        mine, fleet.registries = fleet.registries, [f"127.0.0.1:{free_port()}"]
        url = fleet.url
        fleet.add_gateway("other", metrics=f"127.0.0.1:{other}")
        fleet.registries, fleet.url = mine, url
        yield fleet, Prometheus(address)
    finally:
        process.terminate()
        process.wait(30)


def test_promtool_takes_the_rules_and_their_tests():
    for command in (["check", "rules", str(RULES)], ["check", "config", "prometheus.yml"]):
        subprocess.run(["promtool", *command], cwd=RULES.parent, check=True, timeout=60)
    done = subprocess.run(
        ["promtool", "test", "rules", "cortex.rules.test.yml"],
        cwd=RULES.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_panels_have_data_and_alerts_fire_within_two_minutes(watched, measured):
    fleet, prometheus = watched

    async def fires(*names: str) -> None:
        began = time.monotonic()
        try:
            await asyncio.to_thread(until, lambda: set(names) <= prometheus.firing(), TWO_MINUTES)
        except AssertionError:
            pytest.fail(f"{set(names) - prometheus.firing()} do not fire")
        measured(f"{', '.join(names)}: within {time.monotonic() - began:.0f} s")

    async with Clients(fleet.url) as clients, httpx.AsyncClient(timeout=30) as plain:
        first, second, _ = await two_loaded(fleet, clients)
        far = ScriptedUpstream(UPSTREAM_PORT)
        await far.start()
        running = [clients.begin(model, 3000)[1] for model in (first, second)]
        for _ in range(3):
            await clients.all([(first, 30), (second, 30)])
            await ask(plain, fleet.url, "far")
            await asyncio.sleep(2)
        await far.stop()
        empty = [
            (title, expression)
            for title, expression in expressions()
            if not prometheus.query(expression) and title not in NEEDS_A_GPU
        ]
        calm = prometheus.firing() - {"CortexGatewayNotReady"}

        async def ask_bad() -> None:
            while True:
                for model in ("bad", "far"):
                    await ask(plain, fleet.url, model)
                await asyncio.sleep(0.2)

        asking = asyncio.create_task(ask_bad())
        fleet["right"].kill()
        await fires("CortexNeuronLost", "CortexGatewayNotReady", "CortexModelFails")
        await fires("CortexUpstreamDown")
        asking.cancel()
        fleet["left"].kill()
        await fires("CortexNoNeurons")
        fleet["registry"].kill()
        fleet["gateway"].kill()
        await fires("CortexNobodyLeads", "CortexGatewayDown")
        for task in running:
            task.cancel()

    assert not empty
    assert not calm
