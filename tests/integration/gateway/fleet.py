"""A gateway over stand-ins: one registry, some neurons, real sockets between all of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import msgspec
from prometheus_client import CollectorRegistry, generate_latest

from services.backplane.process.lifecycle import Shutdown
from services.backplane.security.audit import AuditSettings
from services.backplane.security.credentials import FleetCredentials
from services.gateway.settings import AuthSettings, GatewaySettings
from services.gateway.wire import Gateway
from tests.doubles.scripted_neuron import Script, ScriptedNeuron
from tests.doubles.stand_in_registry import StandInRegistry

SECONDS = 60.0
DEFAULTS = GatewaySettings(
    listen="127.0.0.1:0", metrics_listen="", settle_seconds=0.5, drain_seconds=5.0
)


class Fleet:
    """Starts with one registry that knows the model `tiny`, and no neuron."""

    def __init__(self) -> None:
        self.registry = StandInRegistry()
        self.neurons: list[ScriptedNeuron] = []
        self.shutdown = Shutdown()
        self.gateway: Gateway
        self.client: httpx.AsyncClient
        self._serving: asyncio.Task[None] | None = None

    async def start(self, auth: AuthSettings | None = None, **settings: Any) -> None:
        await self.registry.start()
        self.registry.add_model("tiny", ["tiny-alias"])
        await self.start_gateway(auth, **settings)

    async def start_gateway(
        self,
        auth: AuthSettings | None = None,
        *,
        is_early: bool = False,
        credentials: FleetCredentials | None = None,
        audit: AuditSettings | None = None,
        **settings: Any,
    ) -> None:
        """Starts the gateway; `is_early`: returns before that has reached the registry."""
        made = msgspec.structs.replace(DEFAULTS, registry=(self.registry.address,), **settings)
        self.gateway = Gateway(
            made,
            auth or AuthSettings(),
            registry=CollectorRegistry(),
            credentials=credentials,
            audit=audit,
        )
        self._serving = asyncio.create_task(self.gateway.serve(self.shutdown))
        self.client = httpx.AsyncClient(
            base_url=f"http://{self.gateway.address}", timeout=SECONDS, trust_env=False
        )
        if is_early:
            return
        async with asyncio.timeout(SECONDS):
            while not self.gateway.services.view.is_known:
                await self.gateway.services.view.changed()

    async def stop(self) -> None:
        await self.client.aclose()
        self.shutdown.request()
        if self._serving is not None:
            async with asyncio.timeout(SECONDS):
                await self._serving
        for neuron in self.neurons:
            await neuron.stop()
        await self.registry.stop()

    async def ended(self) -> None:
        """Waits until the gateway has stopped."""
        assert self._serving is not None
        async with asyncio.timeout(SECONDS):
            await asyncio.shield(self._serving)

    async def add_neuron(
        self, name: str = "n1", *scripts: Script, models: tuple[str, ...] = ("tiny",)
    ) -> ScriptedNeuron:
        neuron = ScriptedNeuron(name, models)
        neuron.scripts = list(scripts) or neuron.scripts
        await neuron.start()
        self.neurons.append(neuron)
        await self.announce(neuron)
        return neuron

    async def announce(self, neuron: ScriptedNeuron, **facts: bool) -> None:
        """Reports a neuron to the registry; returns when the gateway knows."""
        described = neuron.described(**facts)
        self.registry.put(described)
        view = self.gateway.services.view
        async with asyncio.timeout(SECONDS):
            while True:
                known = view.neurons.get(neuron.name)
                if known is not None and known.report.sequence >= described.report.sequence:
                    return
                await view.changed()

    # Clients.

    async def chat(self, **more: Any) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json=chat_body(**more))

    @contextlib.asynccontextmanager
    async def streamed(self, **more: Any) -> AsyncGenerator[httpx.Response]:
        body = chat_body(stream=True, **more)
        async with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            yield response

    async def stream_text(self, **more: Any) -> str:
        async with self.streamed(**more) as response:
            return (await response.aread()).decode()

    def sample(self, name: str, **labels: str) -> float | None:
        self.gateway.services.access_log.settle()
        return self.gateway.registry.get_sample_value(name, labels)

    def metric(self, name: str, **labels: str) -> float:
        value = self.sample(name, **labels)
        assert value is not None, f"no sample {name} {labels}"
        return value

    def exposition(self) -> str:
        self.gateway.services.access_log.settle()
        return generate_latest(self.gateway.registry).decode()


def chat_body(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], **more}


async def lines(response: httpx.Response) -> AsyncIterator[str]:
    """The non-empty lines of a stream as they come."""
    async for line in response.aiter_lines():
        if line:
            yield line


def contents(stream: str) -> list[str]:
    """The text deltas of a whole chat stream."""
    found: list[str] = []
    for line in stream.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:]).get("choices", ()):
                piece = choice["delta"].get("content")
                if piece:
                    found.append(piece)
    return found
