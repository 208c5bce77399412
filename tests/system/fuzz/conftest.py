"""One fleet for each fuzzer: a scripted model, and no way to any other machine."""

import contextlib

import pytest

from tests.doubles import scripted
from tests.system import local_fleet
from tests.system.fuzz.search import SECONDS, Watch


@contextlib.contextmanager
def running(data, *more):
    """`cortex up` with these options, until the context is left."""
    (data / "models").mkdir()
    path = data / "models" / "alpha.gguf"
    scripted.build(path, scripted.Script(words=["Hello", " there"], name="alpha"))
    (data / "models.toml").write_text(f'[[models]]\nid = "alpha"\nsource = "path:{path}"\n')
    offline = {"CORTEX_NEURON__HF_ENDPOINT": "http://127.0.0.1:9"}
    made = local_fleet.start(data, "--model", "alpha", *more, environment=offline)
    yield made
    assert made.end() == 0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with running(tmp_path_factory.mktemp("fuzzed")) as fleet:
        yield fleet


@pytest.fixture
def watch(fleet):
    return Watch(fleet)


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.timeout(SECONDS + 180))
