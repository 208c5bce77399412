"""Opening the library on machines that lack something, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

OPEN = """
from services.neuron.engines import EngineUnavailableError, create_engine
try:
    create_engine("exllamav2")
except EngineUnavailableError as error:
    print("refused:", error)
"""
PRETEND = """
import torch
torch.cuda.device_count = lambda: 1
torch.cuda.get_device_capability = lambda *_: (9, 0)
"""

MISSING = "No CUDA device is visible" if torch.version.cuda else "is a build without CUDA"

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def run(program: str, *options: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_device_it_says_so() -> None:
    assert "refused: No CUDA device is visible" in run(OPEN)


def test_without_the_extension_it_names_the_command(tmp_path: object) -> None:
    said = run(PRETEND + OPEN, XDG_CACHE_HOME=str(tmp_path))

    assert "not built for torch" in said
    assert "cortex neuron build-engine exllamav2" in said


def test_without_assertions_it_does_not_run() -> None:
    assert "python -O" in run(OPEN, "-O")


def test_an_attention_that_cannot_be_is_refused() -> None:
    program = f"""
from tests.engines.exllamav2 import emulation; emulation.install()
import os
for wish in ("flash", "fa3", "fast"):
    os.environ["CORTEX_EXLLAMAV2_ATTENTION"] = wish
    exec({OPEN!r})
"""

    said = run(program)

    for wish in ("flash", "fa3", "fast"):
        assert f"refused: CORTEX_EXLLAMAV2_ATTENTION={wish}" in said


def test_an_import_that_came_too_early_is_found_out() -> None:
    program = (
        "from tests.engines.exllamav2 import emulation; emulation.install()\nimport exllamav2\n"
    )

    assert "imported before its attention" in run(program + OPEN)


def test_the_probe_asks_torch_in_another_process() -> None:
    said = run(
        "from services.neuron.engines.exllamav2.library.probe import probe\n"
        "print(probe())\nimport sys; print('torch' in sys.modules)\n"
    )

    assert MISSING in said
    assert said.strip().endswith("False")


def test_the_probe_has_a_limit() -> None:
    said = run(
        "from services.neuron.engines.exllamav2.library.probe import probe\n"
        "print(probe(limit_seconds=0.01).reason)\n"
    )

    assert said == "torch did not answer within 0 s.\n"


def test_the_doctor_gets_a_sentence_and_a_code() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from services.neuron.engines.exllamav2.library.probe import check; check()",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert MISSING in done.stderr


def test_noise_of_a_rehearsal_depends_on_the_shape_of_the_batch_alone() -> None:
    program = """
from services.neuron.engines.exllamav2.library.library import open_library
open_library()
import torch
from exllamav2 import ExLlamaV2
print(ExLlamaV2.forward_chunk.__qualname__)
from tests.engines.exllamav2 import emulation
class Model:
    def forward_chunk(self, rows):
        return {"logits": torch.zeros(rows, 1, 64)}
emulation._add_noise(torch, Model, 0.01)
one, two, again = (Model().forward_chunk(rows)["logits"] for rows in (1, 2, 1))
assert torch.equal(one, again)
assert torch.equal(two[0], two[1])
assert not torch.equal(one[0], two[0])
assert 0.005 < one.abs().max() <= 0.01
"""
    root = Path(__file__).parent
    for place, expected in (("emulated", "ExLlamaV2"), ("emulated_noise", "_add_noise")):
        paths = [root / place, root.parents[2], root.parents[2] / "protos"]
        said = run(program, PYTHONPATH=":".join(map(str, paths)))
        assert expected in said
