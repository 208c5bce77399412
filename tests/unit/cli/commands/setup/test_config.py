import json
import tomllib

import pytest
from typer.testing import CliRunner

from services.cli.__main__ import app


def run(*arguments, environment=None):
    return CliRunner().invoke(app, ["config", *map(str, arguments)], env=environment)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "cortex.toml"
    path.write_text("[gateway]\nidle_seconds = '90s'\n[[auth.keys]]\nname = 'a'\nkey = 'k3y'\n")
    return path


def test_what_is_shown_is_toml_that_means_the_same(config):
    shown = run("show", "gateway", "neuron", "--config", config).stdout

    (config.parent / "again.toml").write_text(shown)
    again = run("show", "gateway", "neuron", "--config", config.parent / "again.toml").stdout
    assert tomllib.loads(shown) == tomllib.loads(again)
    assert f'idle_seconds = "90s"  # {config}' in shown
    assert "[auth]" not in shown


def test_what_is_shown_may_be_json_of_what_is_changed(config):
    shown = run(
        "show", "--changed", "--json", "-c", config, environment={"CORTEX_LOG__LEVEL": "debug"}
    )

    told = json.loads(shown.stdout)
    assert {"value": "debug", "from": "CORTEX_LOG__LEVEL"} == told["log.level"]
    assert {"value": 90.0, "from": str(config)} == told["gateway.idle_seconds"]
    assert {"value": "(hidden)", "from": str(config)} == told["auth.keys[0].key"]
    assert "gateway.listen" not in told


def test_what_up_adds_is_shown_with_its_options(config):
    told = json.loads(run("show", "--json", "-c", config, "--up", "--port", "8000").stdout)

    assert {"value": "127.0.0.1:8000", "from": "--port 8000"} == told["gateway.listen"]
    assert {"value": "127.0.0.1:8002", "from": "cortex up"} == told["registry.listen"]


def test_check_says_what_is_wrong_and_ends_with_78(config):
    fine = run("check", "--config", config)
    config.write_text("[gateway]\nidle_seconds = 'soon'\n")
    wrong = run("check", "--config", config)

    assert (0, 78) == (fine.exit_code, wrong.exit_code)
    assert "gateway.idle_seconds: 'soon' is not a duration" in " ".join(wrong.stderr.split())
    assert 78 == run("show", "--config", config).exit_code
    assert 78 == run("check", "--config", config.parent / "nothing.toml").exit_code


def test_check_looks_at_a_catalogue_alone(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text("[[models]]\nid = 'a'\n[aliases]\nb = 'c'\n")

    wrong = run("check", "--models", path)

    assert 78 == wrong.exit_code
    assert "'c' is no model of this catalogue" in " ".join(wrong.stderr.split())


def test_a_table_within_an_entry_of_a_list_is_shown_as_one(config):
    config.write_text(
        "[auth]\nkeys = [{ name = 'a', key = 'k', limits = { requests_per_minute = 5 } },"
        " { name = 'b', key = 'k' }]\n"
    )

    told = tomllib.loads(run("show", "auth.keys", "--changed", "-c", config).stdout)

    (first, second) = told["auth"]["keys"]
    assert ({"requests_per_minute": 5}, "b") == (first["limits"], second["name"])


@pytest.mark.parametrize("text", ["gateway = 5", "[gateway]\nlisten = 5", f"a = {'[' * 3000}"])
@pytest.mark.parametrize("command", [["check"], ["show"], ["show", "--up"], ["show", "--port=5"]])
def test_what_is_no_setting_at_all_ends_with_78(config, text, command):
    config.write_text(text)

    assert 78 == run(*command, "-c", config).exit_code


@pytest.mark.parametrize(
    "store",
    [
        "host=db password=s3cret",
        "mysql://ann:s3cret@db",
        "postgresql://ann:100%s3cret@db/cortex",
        "postgresql://ann:s3cret@with:ats@db/cortex",
    ],
)
def test_a_store_that_nobody_can_open_is_told_without_its_password(config, store):
    config.write_text(f"[registry]\nstore = '{store}'\n")

    wrong = run("check", "-c", config)

    assert 78 == wrong.exit_code
    assert "registry.store: " in wrong.stderr
    assert "s3cret" not in wrong.stderr
