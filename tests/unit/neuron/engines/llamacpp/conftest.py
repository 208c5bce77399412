from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engines.llamacpp.engine import LlamaCppEngine
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.locate import locate

LoadModel = Callable[..., LoadedModel]


@pytest.fixture(scope="session")
def library() -> Library:
    return Library(locate(""))


@pytest.fixture(scope="session")
def engine(library: Library) -> LlamaCppEngine:
    return LlamaCppEngine(library)


@pytest.fixture
def load(engine: LlamaCppEngine) -> Iterator[LoadModel]:
    """Loads a file; every model is closed at the end of the test."""
    loaded: list[LoadedModel] = []

    def load_one(path: object, **plan: Any) -> LoadedModel:
        steps = engine.load(LoadPlan("i", "llamacpp", str(path), **plan))
        while True:
            try:
                next(steps)
            except StopIteration as done:
                loaded.append(done.value)
                return loaded[-1]

    yield load_one
    for model in loaded:
        model.close()
