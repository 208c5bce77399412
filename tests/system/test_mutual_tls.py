"""A whole fleet whose parts know each other by certificates."""

import http.client
import json
import urllib.parse

import pytest

from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import registry_service_pb2 as registry
from cortex.v1 import registry_service_pb2_grpc as registry_grpc
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import streaming
from services.backplane.rpc.channels import open_channel
from services.backplane.security.authority import create, issue
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role
from services.backplane.security.settings import FleetSettings
from tests.doubles import scripted
from tests.system import local_fleet as running

WORDS = ["Only", " friends", " hear", " this."]


def section(folder, name):
    paths = {"ca": "ca.pem", "certificate": f"{name}.pem", "key": f"{name}.key"}
    return {key: str(folder / path) for key, path in paths.items()}


@pytest.fixture
def fleet(tmp_path):
    pki, data = tmp_path / "pki", tmp_path / "data"
    create(pki)
    issue(pki, list(Role), neuron="local", out=pki / "all", days=2)
    issue(pki, [Role.NEURON], neuron="other", out=pki / "other", days=2)
    (data / "models").mkdir(parents=True)
    model = data / "models" / "friendly.gguf"
    scripted.build(model, scripted.Script(words=WORDS, name="friendly"))
    (data / "models.toml").write_text(
        f'[[models]]\nid = "friendly"\nsource = "path:{model}"\n', encoding="utf-8"
    )
    config = tmp_path / "cortex.toml"
    lines = [f'{key} = "{path}"' for key, path in section(pki, "all").items()]
    config.write_text("[fleet]\n" + "\n".join(lines) + "\n")
    fleet = running.start(data, "--config", str(config), "--model", "friendly", environment={})
    yield fleet, pki
    assert fleet.end() == 0


async def test_a_fleet_with_certificates_answers_and_lets_nobody_take_a_neurons_place(fleet):
    fleet, pki = fleet
    url = urllib.parse.urlsplit(fleet.url)
    client = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    body = {"model": "friendly", "messages": [{"role": "user", "content": "Hi"}]}
    client.request("POST", "/v1/chat/completions", json.dumps(body))
    answer = json.loads(client.getresponse().read())
    client.close()
    assert answer["choices"][0]["message"]["content"].startswith("Only friends hear")

    for name, named, why in (
        ("other", "local", "not for the neuron 'local'"),
        ("all", "other", "not for the neuron 'other'"),
    ):
        credentials = FleetCredentials(FleetSettings(**section(pki, name)))
        with pytest.raises(FleetError, match=why) as caught:
            await attach(fleet.registry, credentials, named)
        assert (caught.value.reason, caught.value.field) == (Reason.FORBIDDEN, "hello.name")


async def attach(address, credentials, name):
    hello = neuron.NeuronIdentity(name=name, incarnation_id="x", address="127.0.0.1:1")
    async with open_channel(address, credentials) as channel:
        stub = registry_grpc.RegistryServiceStub(channel)
        call = stub.Attach(iter([registry.AttachRequest(hello=hello)]), timeout=60)
        async with streaming(call) as answers:
            return [each async for each in answers]
