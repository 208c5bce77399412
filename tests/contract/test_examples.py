"""Every example is read by the service that it is for, and says what the documentation says."""

import pathlib
import re
import tomllib

import jsonschema
import pytest

from services.agent.core.settings import load_settings
from services.backplane.settings import SECTIONS, load
from services.cli.local_fleet import LocalFleet
from services.cli.settings_files.schema import schema
from services.cli.settings_files.sections import SettingsFile
from services.cli.up_settings import catalogue_path, choose
from services.gateway import settings as gateway_settings
from services.neuron.settings import NeuronSettings
from services.registry import settings as registry_settings
from services.registry.catalogue import catalogue

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_cortex_toml_is_read_by_gateway_and_registry():
    document = load(EXAMPLES / "cortex.toml", {})

    gateway, _ = gateway_settings.read(document)
    registry = registry_settings.read(document)

    assert ("0.0.0.0:31313", "127.0.0.1:31314") == (gateway.listen, gateway.metrics_listen)
    assert ("lru", 50) == (registry.eviction.strategy, registry.eviction.defrag_after_cycles)
    assert [("beast", "http://beast.internal:13131")] == [
        (neuron.name, neuron.endpoint) for neuron in registry.neurons
    ]


def test_neuron_toml_is_read_by_the_neuron():
    settings = load(EXAMPLES / "neuron.toml", {}).section("neuron", NeuronSettings)

    assert ("beast", ("gateway.internal:31315",)) == (settings.name, settings.registry)


def test_models_toml_is_read_by_the_registry():
    assert catalogue.load(EXAMPLES / "models.toml").profiles


def test_the_catalogue_of_cortex_up_is_read_by_the_registry(tmp_path):
    settings = choose(load(None, {}), tmp_path, host=None, port=None)
    LocalFleet(
        tmp_path,
        settings,
        gateway_settings.GatewaySettings(),
        gateway_settings.AuthSettings(),
        None,
    ).prepare()

    assert "smollm2-135m" in catalogue.load(catalogue_path(tmp_path)).profiles


def test_agent_toml_is_read_by_the_agent():
    text = (EXAMPLES / "agent.toml").read_text()
    variables = dict.fromkeys(re.findall(r'api_key_env\s*=\s*"(\w+)"', text), "x")

    assert load_settings(variables, EXAMPLES / "agent.toml").endpoints


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_toml_in_the_documentation_is_what_the_services_read(page):
    for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
        told = tomllib.loads(block.replace('"…"', f'"{"ab" * 32}"'))  # a digest
        if told.keys() <= SECTIONS and "url" not in told.get("fleet", {}):
            jsonschema.validate(told, schema(SettingsFile.CORTEX))
        elif told.keys() <= {"models", "aliases"}:
            jsonschema.validate(told, schema(SettingsFile.MODELS))
        else:
            assert page.parent.name == "clients" or page.name == "agent.md"


def test_the_readmes_settings_are_those_of_the_example():
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shown, example = tomllib.loads(block), tomllib.loads((EXAMPLES / "cortex.toml").read_text())

    assert shown.items() <= example.items()


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
