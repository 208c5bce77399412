"""One fleet, the documents, and what was held against them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.contract.openapi.anthropic import ANTHROPIC
from tests.contract.openapi.api import CheckedApi, Tally
from tests.contract.openapi.document import Document, load
from tests.contract.openapi.messages_api import CheckedMessages
from tests.contract.openapi.openai import OPENAI
from tests.doubles import scripted, tiny_bert
from tests.system import local_fleet as running

_TALLIES = pytest.StashKey[dict[str, Tally]]()


@pytest.fixture(scope="session")
def document() -> Document:
    return Document(load(OPENAI), OPENAI)


@pytest.fixture(scope="session")
def anthropic_document() -> Document:
    return Document(load(ANTHROPIC), ANTHROPIC)


@pytest.fixture(scope="session")
def tallies(pytestconfig: pytest.Config) -> dict[str, Tally]:
    """What was held against each document, by its publisher."""
    return pytestconfig.stash.setdefault(_TALLIES, {})


@pytest.fixture(scope="session")
def tally(tallies: dict[str, Tally]) -> Tally:
    return tallies.setdefault(OPENAI.name, Tally())


@pytest.fixture(scope="session")
def anthropic_tally(tallies: dict[str, Tally]) -> Tally:
    return tallies.setdefault(ANTHROPIC.name, Tally())


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Gateway, registry and neuron with small models, and a neuron that says what it is told to."""
    data = tmp_path_factory.mktemp("openapi")
    (data / "models").mkdir()
    words = scripted.build(
        data / "models" / "words.gguf",
        scripted.Script(words=["Hello", " from", " the", " fleet", " 🙂"], name="words"),
    )
    vectors = tiny_bert.build(data / "models" / "vectors.gguf")
    (data / "models.toml").write_text(
        f'[[models]]\nid = "words"\nsource = "path:{words}"\n'
        f'[[models]]\nid = "vectors"\nsource = "path:{vectors}"\ncapabilities = ["embedding"]\n'
    )
    fleet = running.start(data, "--model", "words", environment={})
    try:
        with _scripted_neuron(fleet.registry):
            yield fleet.url
    finally:
        fleet.end()


@pytest.fixture(scope="session")
def real_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`cortex up` as it comes, with SmolLM2."""
    fleet = running.start(tmp_path_factory.mktemp("openapi-real"), environment={})
    yield fleet.url
    fleet.end()


@pytest.fixture
def api(document: Document, fleet: str, tally: Tally) -> Iterator[CheckedApi]:
    made = CheckedApi(fleet, document, tally)
    yield made
    made.close()


@pytest.fixture
def real_api(document: Document, real_fleet: str, tally: Tally) -> Iterator[CheckedApi]:
    made = CheckedApi(real_fleet, document, tally)
    yield made
    made.close()


@pytest.fixture(params=[False, True], ids=["plain", "beta"])
def messages_api(
    request: pytest.FixtureRequest,
    anthropic_document: Document,
    fleet: str,
    anthropic_tally: Tally,
) -> Iterator[CheckedMessages]:
    """Anthropic's API and its beta, of which the document says different things."""
    made = CheckedMessages(fleet, anthropic_document, anthropic_tally, is_beta=request.param)
    yield made
    made.close()


@pytest.fixture(params=[False, True], ids=["plain", "beta"])
def real_messages_api(
    request: pytest.FixtureRequest,
    anthropic_document: Document,
    real_fleet: str,
    anthropic_tally: Tally,
) -> Iterator[CheckedMessages]:
    made = CheckedMessages(real_fleet, anthropic_document, anthropic_tally, is_beta=request.param)
    yield made
    made.close()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for name, tally in config.stash.get(_TALLIES, {}).items():
        terminalreporter.section(f"held against {name}'s document")
        for line in tally.lines():
            terminalreporter.write_line(line)


@contextlib.contextmanager
def _scripted_neuron(registry: str) -> Iterator[None]:
    """The neuron's process while the context is open."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.clients.scripted_neuron", registry],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "attached\n"
        yield
        process.terminate()
