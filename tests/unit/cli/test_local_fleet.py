import dataclasses
import tomllib

import pytest

from services.cli.local_fleet import LocalFleet, Ports, default_data_dir, free_ports


@pytest.fixture
def fleet(tmp_path):
    return LocalFleet(data_dir=tmp_path, host="0.0.0.0", ports=Ports.beside(31313), config=None)


def test_the_usual_ports_are_those_of_the_documentation():
    ports = Ports.beside(31313)

    assert (31313, 31314, 31315, 13131) == (
        ports.gateway,
        ports.gateway_metrics,
        ports.registry,
        ports.neuron,
    )


@pytest.mark.parametrize(
    "ports", [Ports.beside(31313), Ports.beside(8000), free_ports("127.0.0.1")]
)
def test_no_port_is_used_twice(ports):
    assert 6 == len(set(dataclasses.astuple(ports)))


def test_a_fleet_on_all_interfaces_is_reached_at_loopback(fleet):
    assert "http://127.0.0.1:31313" == fleet.gateway_url
    assert "127.0.0.1:31315" == fleet.registry_address


def test_the_catalogue_is_written_once_and_then_yours(fleet):
    fleet.prepare()
    assert "smollm2-135m" == tomllib.loads(fleet.catalogue.read_text())["models"][0]["id"]
    fleet.catalogue.write_text("mine")

    fleet.prepare()

    assert "mine" == fleet.catalogue.read_text()


def test_data_lies_where_the_desktop_says(tmp_path):
    assert tmp_path / "cortex" == default_data_dir({"XDG_DATA_HOME": str(tmp_path)})
    assert default_data_dir({}).parts[-3:] == (".local", "share", "cortex")
