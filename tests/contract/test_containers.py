"""The containers' files: settings that the services take, no root, and no file that the build lacks."""

import pathlib
import re

import pytest
import yaml

from services.backplane.settings import load
from services.gateway import settings as gateway_settings
from services.gateway.server import own_names
from services.neuron.settings import NeuronSettings
from services.registry import settings as registry_settings
from services.registry.catalogue import catalogue

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "containers"
CONTAINERFILE = (FOLDER / "Containerfile").read_text()
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
STAGE = re.compile(r"^FROM (\S+) AS (\S+)$", re.MULTILINE)


def environment(target: str) -> dict[str, str]:
    """What a stage sets of CORTEX_…"""
    stage = CONTAINERFILE.split(f" AS {target}\n")[1].split("\nFROM ")[0]
    return dict(re.findall(r"\b(CORTEX_\w+)=(\S+)", stage))


def test_the_stages_are_those_that_the_head_names():
    stages = [name for _, name in STAGE.findall(CONTAINERFILE)]

    assert ["wheel", "common", "cortex", "neuron", "neuron-cuda"] == stages
    for target in re.findall(r"--target (\S+)", CONTAINERFILE):
        assert target in stages


@pytest.mark.parametrize("target", ["cortex", "neuron", "neuron-cuda"])
def test_a_container_runs_as_nobody_and_has_a_health_check(target):
    stage = CONTAINERFILE.split(f" AS {target}\n")[1].split("\nFROM ")[0]

    assert re.search(r"^USER 10001$", stage, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", stage, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["cortex"\]$', stage, re.MULTILINE)


def test_the_build_is_given_the_files_that_it_copies():
    ignored = (FOLDER / "Containerfile.dockerignore").read_text()
    given = {line[1:] for line in ignored.splitlines() if line.startswith("!")}

    assert all((ROOT / name).exists() for name in given)
    assert {"constraints.txt", "protos", "pyproject.toml", "services"} <= given


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_the_services_take_their_environment(service):
    entry = COMPOSE["services"][service]
    document = load(None, {**environment(entry["build"]["target"]), **entry["environment"]})

    if service == "neuron":
        assert document.section("neuron", NeuronSettings).registry == ("front:31315",)
    else:
        gateway, _ = gateway_settings.read(document)
        registry = registry_settings.read(document)
        assert ("0.0.0.0:31313", "0.0.0.0:31315") == (gateway.listen, registry.registry.listen)


def test_what_the_neuron_fetches_goes_where_it_may_write():
    entry = COMPOSE["services"]["neuron"]
    document = load(None, {**environment("neuron"), **entry["environment"]})
    settings = document.section("neuron", NeuronSettings)
    # A named volume; one that is mounted for reading ends with `:ro`.
    writable = [volume.split(":")[1] for volume in entry["volumes"] if volume.count(":") == 1]

    assert any(pathlib.Path(settings.store_dir).is_relative_to(folder) for folder in writable)


def test_only_loopback_reaches_the_open_gateway():
    front = COMPOSE["services"]["front"]

    assert "true" == front["environment"]["CORTEX_GATEWAY__INSECURE"]
    assert all(port.startswith("127.0.0.1:") for port in front["ports"])
    assert COMPOSE["networks"]["fleet"] == {"internal": True}


def test_no_page_in_a_browser_reaches_the_open_gateway_by_a_name_of_its_own():
    front = COMPOSE["services"]["front"]["environment"]
    gateway, _ = gateway_settings.read(load(None, {**environment("cortex"), **front}))
    names = own_names(gateway.listen, gateway.allowed_hosts)

    assert names is not None
    assert ("*" in names, "front" in names) == (False, True)


def test_the_catalogue_is_read_by_the_registry():
    assert catalogue.load(FOLDER / "models.toml").profiles
