"""Certificates of all parts are renewed under 64 streams, and no stream is cut."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from services.backplane.security.authority import issue
from services.backplane.security.roles import Role
from tests.system.fleet.clients import Answer, Clients
from tests.system.fleet.processes import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_STREAMS = 64
_TOKENS = 300
_RENEWALS = 2
_PATIENCE_SECONDS = 240.0
# Requests of all streams run side by side, none waits for a place.
_PLACES = f"max_sequences = {_STREAMS}\n"


class Streams:
    """Sixty-four clients, each of which begins another answer when one has ended.

    Attributes:
        answers: all that were begun.
        open: how many run now.
    """

    def __init__(self, clients: Clients) -> None:
        self.answers: list[Answer] = []
        self.open = 0
        self._clients = clients
        self._ends = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(_STREAMS):
                group.create_task(self._one())

    def end(self) -> None:
        self._ends = True

    async def _one(self) -> None:
        while not self._ends:
            answer, task = self._clients.begin("alpha", _TOKENS)
            self.answers.append(answer)
            self.open += 1
            await task
            self.open -= 1


async def test_certificates_are_renewed_under_64_streams_and_none_is_cut(secure_fleet, measured):
    fleet = secure_fleet
    # of a certificate that is good for two minutes less than a third is left from its beginning
    fleet.add_registry(settings=f"certificate_seconds = 120\n{fleet.authority}{fleet.own}")
    until(fleet.state)
    fleet.add_neuron("left", settings=f"{_PLACES}{fleet.joined('left')}")
    fleet.add_gateway(settings=fleet.own)
    await asyncio.to_thread(fleet.wait, "left")
    await asyncio.to_thread(fleet.cli, "load", "alpha", "--neuron", "left")
    own = pathlib.Path(fleet.folder) / "pki" / "own"
    seen = 0

    async with Clients(fleet.url) as clients, asyncio.timeout(_PATIENCE_SECONDS):
        streams = Streams(clients)
        running = asyncio.create_task(streams.run())
        while sum(bool(each.text) for each in streams.answers) < _STREAMS:
            await asyncio.sleep(0.05)
        before = len(list(fleet["left"].lines("certificate.renewed")))
        while seen < _RENEWALS:
            await asyncio.sleep(0.05)
            now = len(list(fleet["left"].lines("certificate.renewed"))) - before
            if now > seen:
                seen = now
                assert streams.open >= _STREAMS // 2, "the streams were over"
                # that of registry, gateway and operator too, as `cortex pki issue` does it
                roles = [Role.REGISTRY, Role.GATEWAY, Role.OPERATOR]
                await asyncio.to_thread(issue, fleet.folder / "pki", roles, out=own, days=100)
        streams.end()
        await running

    cut = [str(each) for each in streams.answers if not each.is_whole]
    measured(f"{len(streams.answers)} streams of {_TOKENS} tokens, {seen} renewals: {len(cut)} cut")
    assert cut == []
    # and what comes new comes with the new certificates
    assert (await asyncio.to_thread(fleet.cli, "status")).returncode == 0
    assert fleet.live() == {"left"}
