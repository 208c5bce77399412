import dataclasses
import pathlib
import re

import pytest

from services.backplane.settings import SettingsError, load
from services.cli.up_settings import Ports, choose, free_ports

DATA = pathlib.Path("/data of 'ann'")
# Each key that `up` fills in, with a value that its user may have set.
KEYS = {
    "gateway.listen": "127.0.0.9:8000",
    "gateway.metrics_listen": "127.0.0.9:8001",
    "gateway.registry": ["localhost:8002", "elsewhere:1"],
    "gateway.responses_file": "",
    "registry.listen": "127.0.0.1:8002",
    "registry.metrics_listen": "",
    "registry.models": "/mine.toml",
    "registry.store": "sqlite::memory:",
    "neuron.name": "mine",
    "neuron.listen": "127.0.0.9:8004",
    "neuron.metrics_listen": "127.0.0.9:8005",
    "neuron.advertise": "mine:8004",
    "neuron.registry": ["127.0.0.1:8002"],
    "neuron.models_dirs": ["/mine"],
    "neuron.allowed": {"owners": ["me"]},
}


def chosen(environment=None, *, host=None, port=None):
    return choose(load(None, environment or {}), DATA, host=host, port=port)


def variable(key):
    return f"CORTEX_{key.replace('.', '__')}".upper()


def as_text(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_text(each)}" for key, each in value.items()) + "}"
    return value if isinstance(value, str) else str(value).replace("'", '"')


def test_up_fills_in_what_its_user_leaves_open():
    assert set(KEYS) == set(chosen().chosen)


def test_up_leaves_alone_what_its_user_sets():
    settings = chosen({variable(key): as_text(value) for key, value in KEYS.items()})

    assert {} == settings.chosen
    assert KEYS == {
        f"{section}.{key}": value
        for section, table in settings.document.tables.items()
        for key, value in table.items()
    }


def test_a_file_is_left_alone_as_well(tmp_path):
    path = tmp_path / "cortex.toml"
    path.write_text('[neuron]\nname = "mine"\n[registry]\nlisten = "127.0.0.1:8002"\n')

    settings = choose(load(path, {}), DATA, host=None, port=None)

    assert set(KEYS) - {"neuron.name", "registry.listen"} == set(settings.chosen)
    assert ["127.0.0.1:8002"] == settings.chosen["gateway.registry"]
    assert ["127.0.0.1:8002"] == settings.chosen["neuron.registry"]


def test_what_is_filled_in_reaches_the_services_as_it_is():
    settings = chosen()

    read = load(None, settings.environment())

    assert settings.document.tables == read.tables
    assert [f"{DATA}/models"] == read.tables["neuron"]["models_dirs"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_only_the_gateway_listens_where_the_host_says(host):
    addresses = {name: address.host for name, address in chosen(host=host).listens()}

    assert host == addresses.pop("gateway")
    assert {"127.0.0.1"} == set(addresses.values())
    assert 5 == len(addresses)


def test_the_usual_ports_are_those_of_the_documentation():
    ports = {name: address.port for name, address in chosen().listens()}

    assert {
        "gateway": 31313,
        "gateway metrics": 31314,
        "registry": 31315,
        "registry metrics": 31316,
        "neuron": 13131,
        "neuron metrics": 13132,
    } == ports


def test_the_other_ports_lie_beside_the_one_that_is_set():
    settings = chosen({"CORTEX_GATEWAY__LISTEN": "127.0.0.1:8000"})

    assert "127.0.0.1:8002" == settings.chosen["registry.listen"]


@pytest.mark.parametrize("ports", [Ports.beside(31313), Ports.beside(8000), free_ports()])
def test_no_port_is_used_twice(ports):
    assert 6 == len(set(dataclasses.astuple(ports)))


@pytest.mark.parametrize(
    ("environment", "options", "places"),
    [
        (
            {"CORTEX_GATEWAY__LISTEN": "127.0.0.1:8000"},
            {"port": 9000},
            ("--port 9000", "CORTEX_GATEWAY__LISTEN: gateway.listen = '127.0.0.1:8000'"),
        ),
        (
            {"CORTEX_GATEWAY__LISTEN": "127.0.0.1:8000"},
            {"host": "0.0.0.0"},
            ("--host 0.0.0.0", "CORTEX_GATEWAY__LISTEN"),
        ),
        (
            {
                "CORTEX_GATEWAY__REGISTRY": '["127.0.0.1:9"]',
                "CORTEX_REGISTRY__LISTEN": "127.0.0.1:8",
            },
            {},
            ("CORTEX_GATEWAY__REGISTRY: gateway.registry", "CORTEX_REGISTRY__LISTEN"),
        ),
        (
            {"CORTEX_NEURON__REGISTRY": '["127.0.0.1:9"]'},
            {},
            ("CORTEX_NEURON__REGISTRY: neuron.registry", "127.0.0.1:31315", "`cortex up`"),
        ),
        ({"CORTEX_REGISTRY__LISTEN": "127.0.0.1:0"}, {}, ("CORTEX_REGISTRY__LISTEN", "--port 0")),
    ],
)
def test_a_contradiction_names_both_places(environment, options, places):
    with pytest.raises(SettingsError) as refused:
        chosen(environment, **options)

    for place in places:
        assert re.search(re.escape(place), str(refused.value))


def test_what_is_said_twice_is_no_contradiction():
    settings = chosen({"CORTEX_GATEWAY__LISTEN": "0.0.0.0:8000"}, host="0.0.0.0", port=8000)

    assert "gateway.listen" not in settings.chosen


def test_a_neuron_may_wait_to_be_dialled():
    assert "neuron.registry" not in chosen({"CORTEX_NEURON__REGISTRY": "[]"}).chosen
