import tomllib

import pytest
from typer.testing import CliRunner

from services.cli.__main__ import app


def run(*arguments, **more):
    return CliRunner().invoke(app, ["init", *map(str, arguments)], **more)


def test_files_that_are_there_stay(tmp_path):
    (tmp_path / "models.toml").write_text("# mine\n")

    refused = run("registry", "--dir", tmp_path)

    assert 1 == refused.exit_code
    assert "models.toml is there already; --force replaces it" in " ".join(refused.stderr.split())
    assert not (tmp_path / "cortex.toml").exists()
    assert "# mine\n" == (tmp_path / "models.toml").read_text()
    assert 0 == run("registry", "--dir", tmp_path, "--force").exit_code
    assert "# mine" not in (tmp_path / "models.toml").read_text()


def test_nothing_is_written_that_a_service_would_refuse(tmp_path):
    refused = run("neuron", "--dir", tmp_path, "--listen", "0.0.0.0:13131")

    assert 1 == refused.exit_code
    assert "nobody who comes in is asked who he is" in " ".join(refused.stderr.split())
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("listen", ["", "8080", "host:port"])
def test_an_address_has_to_be_one(tmp_path, listen):
    refused = run("gateway", "--dir", tmp_path, "--listen", listen)

    assert 1 == refused.exit_code
    assert refused.stderr.startswith("cortex: --listen: ")


def test_a_gateway_that_others_reach_gets_a_key_that_is_told_once(tmp_path):
    done = run("gateway", "--dir", tmp_path, "--listen", "0.0.0.0:1", "--key-name", "ann")

    secret = done.stdout.partition("key of ann, told only here: ")[2].split("\n")[0]
    assert len(secret) > 40
    assert secret not in (tmp_path / "cortex.toml").read_text()


def test_without_a_terminal_the_part_has_to_be_said(tmp_path):
    refused = run("--dir", tmp_path)

    assert 2 == refused.exit_code
    assert "all-in-one, gateway, registry, neuron" in refused.stderr


@pytest.mark.parametrize("name", ["Zoë \N{GRINNING FACE}", 'a"b\\c', "a\x7f\tb"])
def test_a_key_may_have_any_name(tmp_path, name):
    assert 0 == run("gateway", "--dir", tmp_path, "--key-name", name).exit_code

    settings = tomllib.loads((tmp_path / "cortex.toml").read_text())
    assert name == settings["auth"]["keys"][0]["name"]


def test_who_has_no_name_gets_a_key_nevertheless(tmp_path, monkeypatch):
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54_321)

    done = run("gateway", "--dir", tmp_path, "--listen", "0.0.0.0:1")

    assert "key of user-54321, told only here: " in done.stdout


def test_a_link_that_is_there_stays_and_is_not_followed(tmp_path):
    link = tmp_path / "neuron.toml"
    link.symlink_to(tmp_path / "elsewhere")

    assert 1 == run("neuron", "--dir", tmp_path).exit_code
    assert link.is_symlink()
    assert 0 == run("neuron", "--dir", tmp_path, "--force").exit_code
    assert not link.is_symlink()
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_said_in_a_file_is_refused(tmp_path):
    refused = run("neuron", "--dir", tmp_path / "a\n[gateway]\nlisten = 5")

    assert 1 == refused.exit_code
    assert "cannot be printed" in " ".join(refused.stderr.split())
    assert [] == list(tmp_path.iterdir())
