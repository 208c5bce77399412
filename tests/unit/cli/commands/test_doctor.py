import re

import pytest
from typer.testing import CliRunner

from services.cli.__main__ import app
from services.cli.commands import doctor
from services.cli.commands.doctor import Finding
from services.neuron.devices import ggml
from tests.doubles import vulkan_library

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


def test_the_library_of_gguf_models_is_named_with_its_build_and_backends():
    (finding,) = doctor.llamacpp_findings(ggml.ask("", even_without_cards=True), ())

    assert finding.ok is True
    assert re.match(r"llama\.cpp 0\.6\.0.*xllamacpp.*; backends: CPU$", finding.words)


def test_a_card_that_the_library_does_not_use_comes_with_what_to_install():
    listing = ggml.ask("", even_without_cards=True)

    _, amd = doctor.llamacpp_findings(listing, {"AMD"})

    assert amd.ok is None
    assert "a build of llama.cpp 0.5.0 or 0.6.0 for ROCm or Vulkan" in amd.words


def test_a_gpu_that_the_library_sees_is_shown_with_its_memory(monkeypatch):
    if (why := vulkan_library.missing()) is not None:
        pytest.skip(why)
    for name, value in vulkan_library.environment().items():
        monkeypatch.setenv(name, value)

    findings = list(doctor.llamacpp_findings(ggml.ask(str(vulkan_library.FOLDER)), {"Intel"}))

    assert [finding.what for finding in findings] == ["llamacpp", "llamacpp gpu"]
    assert "Vulkan0, llvmpipe" in findings[1].words
    assert "2.0 of 2.0 GiB free" in findings[1].words


def test_a_library_that_cannot_be_used_is_broken(tmp_path):
    (finding,) = doctor.llamacpp_findings(ggml.ask(str(tmp_path)), ())

    assert finding.ok is False
    assert "there is no libllama" in finding.words


def test_the_makers_of_cards_are_read_from_the_system(tmp_path):
    for name, vendor in {"card0": "0x1002", "card1": "0x1234"}.items():
        (tmp_path / name / "device").mkdir(parents=True)
        (tmp_path / name / "device" / "vendor").write_text(f"{vendor}\n")

    assert doctor.cards(tmp_path) == {"AMD"}
