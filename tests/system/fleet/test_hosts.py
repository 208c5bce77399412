"""Three hosts in network namespaces, joined by tokens, all with certificates, and one revoked."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.system.fleet import hosts
from tests.system.fleet.clients import Clients, has_text
from tests.system.fleet.models import WORDS
from tests.system.fleet.processes import until
from tests.system.fleet.secure import SecureFleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_INSIDE = "CORTEX_TEST_INSIDE_A_NAMESPACE"
_NEURON_PORT = 13131
_GONE_SECONDS = 5.0


def test_three_hosts_join_by_tokens_and_one_that_is_revoked_is_gone():
    """Runs the test below in a network of its own, with the hosts in theirs."""
    if why := hosts.can_be_made():
        pytest.skip(f"NOT SEEN: no network namespaces can be made here: {why}")
    pytest_there = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
    done = subprocess.run(
        ["unshare", "--net", *pytest_there, "-p", "no:xdist", f"{__file__}::test_inside"],
        env={**os.environ, _INSIDE: "1"},
        timeout=380,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.skipif(_INSIDE not in os.environ, reason="runs inside the test above")
async def test_inside(tmp_path: pathlib.Path, catalogue: str) -> None:
    with hosts.hosts(len(WORDS)) as others:
        fleet = SecureFleet(tmp_path, catalogue, host=hosts.OWN_ADDRESS)
        try:
            await _joined_and_revoked(fleet, dict(zip(WORDS, others, strict=True)))
        finally:
            codes = fleet.end()
    assert set(codes.values()) <= {0}, codes


async def _joined_and_revoked(fleet: SecureFleet, others: dict[str, hosts.Host]) -> None:
    # a lease that the test does not outlive: who is gone is gone because of its certificate
    fleet.add_registry(settings=f"lease_seconds = 600\n{fleet.authority}{fleet.own}")
    await asyncio.to_thread(until, fleet.state)
    for name, host in others.items():
        files = await asyncio.to_thread(fleet.joined, name, within=host.within)
        listen = f"{host.address}:{_NEURON_PORT}"
        fleet.add_neuron(name, listen=listen, settings=files, within=host.within)
    fleet.add_gateway(settings=fleet.own)
    await asyncio.to_thread(fleet.wait, *others)
    for name in others:  # each host has the model of its name
        await asyncio.to_thread(fleet.cli, "load", name, "--neuron", name)
    revoked, *kept = others
    async with Clients(fleet.url) as clients:
        running = {name: clients.begin(name, 2000) for name in others}
        for answer, _ in running.values():
            await has_text(answer)
        await asyncio.to_thread(fleet.cli, "neurons", "revoke", revoked)
        began = time.monotonic()
        await asyncio.to_thread(until, lambda: revoked not in fleet.live())
        gone = time.monotonic() - began
        ended = [await running[name][1] for name in kept]
    sys.stderr.write(f"{revoked} gone {gone:.2f} s behind the command\n")
    assert gone < _GONE_SECONDS
    assert all(answer.is_whole for answer in ended), ended
    assert fleet.live() == set(kept)
