"""`cortex serve`: a gateway with a registry inside, and a neuron that it dials."""

from __future__ import annotations

import grpc
import pytest

from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import neuron_service_pb2_grpc as neuron_grpc
from tests.doubles.processes import free_port
from tests.system.fleet.clients import Clients
from tests.system.fleet.conftest import BRISK, BUDGET
from tests.system.fleet.processes import Fleet, until


@pytest.fixture
def served(tmp_path, catalogue):
    """One process for gateway and registry; the neuron knows no registry."""
    fleet = Fleet(tmp_path, catalogue + "[models.sampling]\ntop_k = 7\n")
    address = f"127.0.0.1:{free_port()}"
    fleet.add_neuron("remote", listen=address, settings=BUDGET)
    inside = f"127.0.0.1:{free_port()}"
    fleet.add_gateway(
        command="serve",
        settings=f"""
{BRISK}
[registry]
listen = "{inside}"
metrics_listen = ""
models = "{fleet.catalogue}"
store = "sqlite:{fleet.folder / "registry.sqlite"}"

[[neurons]]
name = "remote"
endpoint = "http://{address}"
""",
    )
    fleet.registries.append(inside)
    try:
        fleet.wait("remote")
        yield fleet, address
    finally:
        codes = fleet.end()
    assert set(codes.values()) <= {0}, codes


async def test_a_dialled_neuron_serves_and_is_dialled_again(served):
    fleet, address = served
    async with Clients(fleet.url) as clients:
        answers = await clients.all([("alpha", 300), ("bravo", 300), ("charlie", 300)])

        assert [str(answer) for answer in answers if not answer.is_whole] == []
        assert (await clients.stream("charlie", 1)).is_whole
        with grpc.insecure_channel(address) as channel:
            stub = neuron_grpc.NeuronServiceStub(channel)
            status = stub.GetStatus(neuron.GetStatusRequest(), timeout=10).status
        (instance,) = status.report.instances
        # the last entry of the catalogue has advice
        assert (instance.spec.model, instance.spec.default_sampling.top_k) == ("charlie", 7)

        fleet["remote"].kill()
        until(lambda: fleet.live() == set())
        fleet["remote"].start()
        until(lambda: fleet.live() == {"remote"})

        assert (await clients.stream("alpha", 300)).is_whole
        assert "remote" in fleet.cli("status").stdout
