import pytest
from typer.testing import CliRunner

from services.cli.__main__ import app
from services.cli.commands import doctor
from services.cli.commands.doctor import Finding

LOOKS = ("_python", "_gateway_stack", "_llamacpp", "_exllamav2", "_hub", "_devices", "_disk")
FINE = Finding("fleet", True, "is ready")


@pytest.mark.parametrize("broken", [*LOOKS, "_gateway", ""])
def test_a_doctor_fails_where_anything_is_broken(monkeypatch, broken):
    for look in LOOKS:
        found = Finding(look, None if look != broken else False, "pip install 'cortex-fleet[hf]'")
        monkeypatch.setattr(doctor, look, lambda found=found: iter([found]))
    fleet = Finding("fleet", False, "is not ready") if broken == "_gateway" else FINE
    monkeypatch.setattr(doctor, "_gateway", lambda _: fleet)

    done = CliRunner().invoke(app, ["doctor"])

    assert int(bool(broken)) == done.exit_code
    assert "pip install 'cortex-fleet[hf]'" in done.stdout
