"""Two fleets, each started once: one with scripted models, one with the real one."""

from __future__ import annotations

import pytest

from tests.doubles import scripted
from tests.system import local_fleet as running

# What the scripted models say; two of them, so that there is something to swap with.
ALPHA = ["Hello", " from", " model", " alpha", " ok!"]
BRAVO = ["Bravo", " answers", " with", " emoji", " 🙂🚀", " yes."]


@pytest.fixture(scope="session")
def scripted_fleet(tmp_path_factory):
    data = tmp_path_factory.mktemp("scripted")
    (data / "models").mkdir()
    entries = []
    for name, words in (("alpha", ALPHA), ("bravo", BRAVO)):
        path = data / "models" / f"{name}.gguf"
        scripted.build(path, scripted.Script(words=words, name=name))
        entries.append(f'[[models]]\nid = "{name}"\nsource = "path:{path}"\n')
    (data / "models.toml").write_text("\n".join(entries))
    fleet = running.start(data, "--model", "alpha", environment={})
    yield fleet
    assert fleet.end() == 0


@pytest.fixture(scope="session")
def real_fleet(tmp_path_factory):
    data = tmp_path_factory.mktemp("real")
    environment = {"CORTEX_NEURON__WORKERS__FIRST_PAUSE_SECONDS": "0.2"}
    fleet = running.start(data, environment=environment)
    yield fleet
    assert fleet.end() == 0
