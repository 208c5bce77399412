from __future__ import annotations

import pathlib

import pytest
from typer.testing import CliRunner

from services.cli import engine_checks
from services.cli.__main__ import app
from services.cli.commands.doctor import _engine
from services.neuron.engines.exllamav2.library import probe

BUILT = {"torch": "2.11.0+cu130", "cuda": "13.0", "arch": "8.6"}


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where torch is installed, it is not there for these tests."""
    monkeypatch.setattr(
        "services.neuron.engines.exllamav2.library.probe.importlib.util.find_spec", _none
    )


def _none(_: str) -> None: ...


def _no_tool(_: str, path: str) -> None: ...


def found(monkeypatch: pytest.MonkeyPatch, *, available: bool, reason: str, **facts: str) -> None:
    report = probe.Report(available, reason, facts)
    monkeypatch.setattr(probe, "probe", lambda: report)


def test_without_a_command_the_daemon_runs_with_the_settings_named(tmp_path: pathlib.Path):
    config = tmp_path / "cortex.toml"
    config.write_text('[neuron]\nlisten = "nowhere"\n')

    done = CliRunner().invoke(app, ["neuron", "--config", str(config)])

    assert done.exit_code == 78
    assert "cortex.toml: neuron.listen: 'nowhere' is not host:port" in done.stderr


@pytest.mark.usefixtures("no_torch")
def test_a_build_says_what_is_missing():
    done = CliRunner().invoke(app, ["neuron", "build-engine", "exllamav2", "--jobs", "2"])

    assert done.exit_code == 1
    assert done.stderr == f"cortex: torch is not installed: {probe.INSTALL}\n"


def test_an_engine_with_nothing_to_build_is_refused():
    assert CliRunner().invoke(app, ["neuron", "build-engine", "llamacpp"]).exit_code == 2


def test_an_engine_that_can_run_says_on_what(monkeypatch, capsys):
    found(monkeypatch, available=True, reason="ExLlamaV2 0.3.2 on RTX, torch 2.11.0.")

    engine_checks.exllamav2()

    assert capsys.readouterr().out == "ExLlamaV2 0.3.2 on RTX, torch 2.11.0.\n"


@pytest.mark.usefixtures("no_torch")
def test_the_check_says_that_torch_is_missing():
    with pytest.raises(SystemExit, match="torch is not installed"):
        engine_checks.exllamav2()


def test_a_missing_extension_comes_with_what_its_build_would_lack(monkeypatch, tmp_path):
    file = tmp_path / "key" / "exllamav2_ext.so"
    words = f"The extension is not built: run `{probe.BUILD}`."
    found(monkeypatch, available=False, reason=words, extension=str(file), **BUILT)
    monkeypatch.setattr("services.neuron.engines.exllamav2.library.build.shutil.which", _no_tool)

    with pytest.raises(SystemExit, match="That would fail now: c\\+\\+ is not installed") as said:
        engine_checks.exllamav2()

    assert str(said.value).startswith(words)


def test_a_check_runs_apart_and_its_last_words_are_the_finding():
    broken = _engine("exllamav2", "pytest")  # installed, whatever else is
    assert broken.ok is False
    assert broken.words.endswith(("'", "."))
    assert _engine("exllamav2", "no_such_package").ok is None
