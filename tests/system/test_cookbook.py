"""Every line of docs/grpcurl.md works, in order, against a running fleet."""

import json
import pathlib
import re
import shlex
import time

import grpc
import pytest

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from tests.system.reflection import Curl

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "grpcurl.md"


def lines():
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def servers(scripted_fleet):
    with grpc.insecure_channel(scripted_fleet.registry) as channel:
        fleet = op_grpc.OperatorServiceStub(channel).GetFleet(op.GetFleetRequest(), timeout=10)
    addresses = {
        "127.0.0.1:13131": fleet.neurons[0].identity.address,
        "127.0.0.1:31315": scripted_fleet.registry,
    }
    servers = {known: Curl(real) for known, real in addresses.items()}
    yield servers
    for server in servers.values():
        server.close()


@pytest.mark.parametrize("line", lines())
def test_a_line_of_the_cookbook_works(servers, line):
    words = shlex.split(line)
    assert ["grpcurl", "-plaintext"] == words[:2]
    fields = json.loads(words[3]) if words[2] == "-d" else {}
    server, what = servers[words[-2]], words[-1]

    if what == "list":
        assert "grpc.health.v1.Health" in server.services()
    else:
        assert server.call(what, **fields)
    if what.endswith("NeuronService/Unload"):
        until_unknown(servers["127.0.0.1:31315"], fields["model"])


def until_unknown(registry, model, seconds=10.0):
    """Returns when the registry has heard what the neuron was told behind its back.

    Until that report it would answer a load with "has been loaded long since".
    """
    deadline = time.monotonic() + seconds
    while True:
        (fleet,) = registry.call("cortex.v1.OperatorService/GetFleet")
        instances = [i for n in fleet["neurons"] for i in n["report"].get("instances", [])]
        if not any(i["spec"]["model"] == model for i in instances):
            return
        assert time.monotonic() < deadline, instances
        time.sleep(0.05)
