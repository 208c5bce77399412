"""`cortex init`: services start from the files that it writes."""

from __future__ import annotations

import os
import subprocess
import sys

import grpc
import pytest

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from services.backplane.process.lifecycle import DIE_WITH_PARENT
from tests.doubles.processes import free_port
from tests.system.fleet.processes import is_ready, until

# three processes start, on whatever else runs here
pytestmark = pytest.mark.timeout(500)
CLI = (sys.executable, "-m", "services.cli")


@pytest.fixture
def started(tmp_path):
    """Starts a service from its file; ends all of them, and says how they ended."""
    running = []
    # whoever else tests on this machine has the usual ports
    environment = {key: value for key, value in os.environ.items() if "CORTEX_" not in key}
    environment |= {
        "CORTEX_GATEWAY__METRICS_LISTEN": "",
        "CORTEX_REGISTRY__METRICS_LISTEN": "",
        "CORTEX_NEURON__METRICS_LISTEN": "",
        "CORTEX_REGISTRY__STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
        DIE_WITH_PARENT: "1",
    }

    def start(service, path, **more):
        with (tmp_path / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(
                [*CLI, service, "--config", str(path)],
                env={**environment, **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        running.append(process)

    yield start
    for process in reversed(running):
        process.terminate()
    assert {0} == {process.wait(40) for process in running}


def written(*arguments):
    subprocess.run(
        [*CLI, "init", *map(str, arguments)], check=True, timeout=60, stdin=subprocess.DEVNULL
    )


def neurons(registry):
    with grpc.insecure_channel(registry) as channel:
        stub = op_grpc.OperatorServiceStub(channel)
        try:
            fleet = stub.GetFleet(op.GetFleetRequest(), timeout=10)
        except grpc.RpcError:
            return []
    return [neuron.identity.name for neuron in fleet.neurons]


def test_gateway_registry_and_neuron_find_each_other_by_their_files(tmp_path, started):
    gateway, registry, neuron = (free_port() for _ in range(3))
    at = f"127.0.0.1:{registry}"
    written("registry", "--dir", tmp_path / "r", "--listen", at)
    written(
        *("gateway", "--dir", tmp_path / "g", "--registry", at),
        *("--listen", f"127.0.0.1:{gateway}"),
    )
    written(
        *("neuron", "--dir", tmp_path / "n", "--registry", at, "--name", "local-test"),
        *("--models-dir", tmp_path / "models", "--listen", f"127.0.0.1:{neuron}"),
    )

    started("registry", tmp_path / "r/cortex.toml")
    started("gateway", tmp_path / "g/cortex.toml")
    started("neuron", tmp_path / "n/neuron.toml")

    assert until(lambda: is_ready(f"http://127.0.0.1:{gateway}"), 200)
    assert until(lambda: neurons(at) == ["local-test"], 200)


def test_one_host_starts_from_its_files(tmp_path, started):
    gateway, registry, neuron = (free_port() for _ in range(3))
    at = f"127.0.0.1:{registry}"
    written(
        *("all-in-one", "--dir", tmp_path, "--listen", f"127.0.0.1:{gateway}"),
        *("--registry", at, "--name", "local-test", "--models-dir", tmp_path / "models"),
    )

    started("serve", tmp_path / "cortex.toml", CORTEX_REGISTRY__LISTEN=at)
    started("neuron", tmp_path / "neuron.toml", CORTEX_NEURON__LISTEN=f"127.0.0.1:{neuron}")

    assert until(lambda: is_ready(f"http://127.0.0.1:{gateway}"), 200)
    assert until(lambda: neurons(at) == ["local-test"], 200)
