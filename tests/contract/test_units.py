"""The units of systemd: shut in, told when the service serves, and with commands that exist."""

from __future__ import annotations

import configparser
import pathlib
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from services.cli.__main__ import app

UNITS = sorted(pathlib.Path("deploy/systemd").glob("*.service"))
MOST_EXPOSURE = 3.0


def read(unit: pathlib.Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(unit)
    return parser


def test_there_is_one_for_every_service():
    assert ["gateway", "neuron", "registry", "serve"] == [u.stem.split("-")[1] for u in UNITS]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_its_command_is_one_of_ours_and_takes_the_settings(unit: pathlib.Path):
    _, command, *rest = read(unit)["Service"]["ExecStart"].split()

    assert rest in (
        ["--config", "/etc/cortex/cortex.toml"],
        ["--config", "/etc/cortex/neuron.toml"],
    )
    assert 0 == CliRunner().invoke(app, [command, "--help"]).exit_code


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_reloads_and_does_not_try_mistaken_settings_again(unit: pathlib.Path):
    service = read(unit)["Service"]

    assert "notify" == service["Type"]
    assert "78" == service["RestartPreventExitStatus"]
    assert service["ExecReload"].endswith("-HUP $MAINPID")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_takes_it_and_rates_it_low(unit: pathlib.Path):
    def analyze(*arguments: str) -> str:
        done = subprocess.run(
            ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    unknown = [line for line in analyze("verify", str(unit)).splitlines() if "nknown" in line]
    rated = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE * 10:g}", str(unit))
    exposure = float(rated.rsplit("service: ", 1)[1].split()[0])

    assert not unknown
    assert exposure < MOST_EXPOSURE
