from collections.abc import Iterator
from pathlib import Path

import pytest

from services.neuron.engine_api.engine import Engine
from services.neuron.engines import create_engine
from tests.contract.engine.driving import Driver
from tests.contract.engine.subjects import SUBJECTS, Subject


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
