"""The settings' JSON Schemas and their page say what the services read."""

import json
import pathlib
import tomllib

import jsonschema
import pytest
import typer.testing

from services.cli.__main__ import app
from services.cli.settings_files.page import page
from services.cli.settings_files.schema import schema
from services.cli.settings_files.sections import SettingsFile

ROOT = pathlib.Path(__file__).parents[2]
FILES = list(SettingsFile)


def validate(file: SettingsFile, text: str) -> None:
    jsonschema.Draft202012Validator(schema(file)).validate(tomllib.loads(text))


def tables(file: SettingsFile):
    whole = schema(file)
    yield from whole["$defs"].items()
    if file is SettingsFile.AGENT:
        yield "agent.toml", whole


@pytest.mark.parametrize("file", FILES)
def test_the_example_is_valid(file):
    validate(file, (ROOT / f"examples/{file}.toml").read_text())


@pytest.mark.parametrize("file", FILES)
def test_the_schema_is_a_schema(file):
    jsonschema.Draft202012Validator.check_schema(schema(file))


@pytest.mark.parametrize("file", FILES)
def test_every_key_is_described(file):
    for name, table in tables(file):
        for key, node in table["properties"].items():
            assert node.get("description"), f"{name}.{key}"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("cortex", "[gatway]"),
        ("cortex", "[gateway]\nlissten = 'a:1'"),
        ("cortex", "[gateway]\nidle_seconds = 'soon'"),
        ("cortex", "[gateway]\nidle_seconds = 0"),
        ("neuron", "[neuron]\nmemory_budget_bytes = '3s'"),
        ("models", "[[models]]"),
        ("models", "[[models]]\nid = 'a'\ncapabilities = ['fly']"),
        ("agent", "mode = 'yolo'"),
        ("agent", "[[endpoints]]\nwire_api = 'soap'"),
    ],
)
def test_what_a_service_refuses_is_invalid(file, text):
    with pytest.raises(jsonschema.ValidationError):
        validate(SettingsFile(file), text)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("cortex", "[gateway]\nidle_seconds = '90s'\nmax_body_bytes = '1.5 MiB'"),
        ("neuron", "[neuron]\nreserved_memory_bytes = 5\nworkers = { stall_seconds = '1m' }"),
        ("models", "[[models]]\nid = 'a'\nmemory = '3GB'\ndevices = 2\nclass = 5"),
        ("agent", "mode = 'plan'\nbash_seconds = '10m'"),
    ],
)
def test_quantities_are_numbers_or_texts_with_a_unit(file, text):
    validate(SettingsFile(file), text)


def test_the_command_prints_the_schema_of_the_file_that_it_names():
    answer = typer.testing.CliRunner().invoke(app, ["config", "schema", "agent"])

    assert json.loads(json.dumps(schema(SettingsFile.AGENT))) == json.loads(answer.stdout)


def test_docs_configuration_md_is_up_to_date():
    answer = typer.testing.CliRunner().invoke(app, ["config", "docs"])

    assert (ROOT / "docs/configuration.md").read_text() == answer.stdout == page(), (
        "make it anew: cortex config docs > docs/configuration.md"
    )
