import pathlib

import pytest

from services.backplane.settings import load
from services.cli.settings_files.effective import in_force


def found(tmp_path, text, environment=None, chosen=None):
    path = tmp_path / "cortex.toml"
    path.write_text(text)
    document = load(path, environment or {})
    return {f"{e.section}.{e.key}": e for e in in_force(document, chosen or {})}


def origins(tmp_path, text, environment=None, chosen=None):
    return {key: each.origin for key, each in found(tmp_path, text, environment, chosen).items()}


def test_every_value_says_whether_it_is_from_default_file_environment_or_command(tmp_path):
    text = "[gateway]\nidle_seconds = 5\n[neuron.workers]\ndeaths = 3\n"
    environment = {
        "CORTEX_NEURON__WORKERS__STALL_SECONDS": "9s",
        "CORTEX_GATEWAY__WORKERS": "2",
    }

    told = origins(tmp_path, text, environment, {"gateway.listen": "--port 8"})

    file = str(tmp_path / "cortex.toml")
    assert file == told["gateway.idle_seconds"] == told["neuron.workers.deaths"]
    assert "CORTEX_NEURON__WORKERS__STALL_SECONDS" == told["neuron.workers.stall_seconds"]
    assert "CORTEX_GATEWAY__WORKERS" == told["gateway.workers"]
    assert "default" == told["gateway.body_seconds"] == told["neuron.workers.start_seconds"]


def test_what_a_command_adds_has_its_option(tmp_path):
    path = tmp_path / "cortex.toml"
    path.write_text("")
    document = load(path, {}).with_values({"gateway.listen": "127.0.0.1:8"})

    told = {
        f"{e.section}.{e.key}": e.origin for e in in_force(document, {"gateway.listen": "--port 8"})
    }

    assert ("--port 8", "default") == (told["gateway.listen"], told["registry.listen"])


def test_entries_of_lists_tell_their_own_defaults(tmp_path):
    told = origins(tmp_path, "[[auth.keys]]\nname = 'ann'\nkey = 'k'\n")

    assert str(tmp_path / "cortex.toml") == told["auth.keys[0].name"]
    assert "default" == told["auth.keys[0].console"]


def test_keys_and_passwords_are_hidden(tmp_path):
    text = """
[registry]
store = "postgresql://ann:s3cret@db/cortex?sslmode=off&password=s3cret"
[gateway.tls]
certificate = "a.pem"
key = "a.key"
key_password = "s3cret"
[[auth.keys]]
name = "ann"
key = "s3cret"
"""
    shown = found(tmp_path, text)

    assert "s3cret" not in repr([each.value for each in shown.values()])
    assert "a.key" == shown["gateway.tls.key"].value
    assert "postgresql://ann:(hidden)@db/cortex?sslmode=off&password=(hidden)" == (
        shown["registry.store"].value
    )


@pytest.mark.parametrize(
    "store",
    [
        "postgresql://ann:s3cret@with@ats@db/cortex",
        "postgresql://ann:s3cret/with/slashes@db/cortex",
        "postgresql://:s3cret@db",
        "postgresql://db/cortex?user=ann&passWord=s3cret",
        "postgresql://db/cortex?ssl%70assword=s3cret#x",
    ],
)
def test_a_password_is_hidden_wherever_a_url_has_it(tmp_path, store):
    shown = found(tmp_path, "", {"CORTEX_REGISTRY__STORE": store})["registry.store"]

    assert "s3cret" not in shown.value
    assert shown.value.startswith("postgresql://")
    assert "with" not in shown.value


def test_secrets_within_lists_and_tables_and_digests_of_keys_are_hidden(tmp_path):
    text = """
[auth]
keys = [{ name = "ann", sha256 = "%s" }]
[neuron]
registry = ["beast:1"]
hf_endpoint = "https://s3cret@hub"
[neuron.sources]
a = "https://ann:s3cret@hub/a?token=s3cret"
"""
    shown = found(tmp_path, text % ("ab" * 32))

    told = repr([each.value for each in shown.values()])
    assert "s3cret" not in told
    assert "abab" not in told
    assert ("beast:1",) == shown["neuron.registry"].value


def test_every_key_of_the_reference_is_there(tmp_path):
    page = (pathlib.Path(__file__).parents[4] / "docs/configuration.md").read_text()

    assert all(f"`{each.key}`" in page for each in found(tmp_path, "").values())
