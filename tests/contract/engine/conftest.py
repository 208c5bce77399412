import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.neuron.engine_api.engine import Engine
from services.neuron.engines import create_engine
from tests.contract.engine.driving import Driver
from tests.contract.engine.recording import VARIABLE, recorder_of
from tests.contract.engine.subjects import SUBJECTS, Subject

_recorder = recorder_of({subject.name: subject.what for subject in SUBJECTS})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keeps what is seen, for docs/engines.md."""
    if _recorder is not None:
        _recorder.note(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes it, where this process has all of it and not a part."""
    if _recorder is not None and not hasattr(session.config, "workerinput"):
        _recorder.write(Path(os.environ[VARIABLE]))


@pytest.fixture(params=SUBJECTS, ids=lambda subject: subject.name, scope="session")
def subject(request: pytest.FixtureRequest) -> Subject:
    chosen: Subject = request.param
    missing = chosen.is_missing()
    if missing is not None:
        pytest.skip(missing)
    return chosen


@pytest.fixture(scope="session")
def engine(subject: Subject) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in subject.environment.items():
            patch.setenv(name, value)
        yield create_engine(subject.engine)


@pytest.fixture
def driver(engine: Engine, subject: Subject, tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(engine, subject, tmp_path)
    yield driver
    driver.close()
