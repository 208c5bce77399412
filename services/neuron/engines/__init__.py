"""The engines, by name. An engine's libraries are imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.neuron.engine_api.engine import Engine

ENGINES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "llamacpp": "services.neuron.engines.llamacpp",
        "exllamav2": "services.neuron.engines.exllamav2",
    }
)
"""Name to package; each package has `create_engine() -> Engine`."""


class EngineUnavailableError(Exception):
    """The engine cannot run here; the message says what is missing or does not match."""


def create_engine(name: str) -> Engine:
    """Imports an engine and lets it check itself.

    Raises:
        EngineUnavailableError: the name is unknown, a library is missing, or a self-check failed.
    """
    package = ENGINES.get(name)
    if package is None:
        raise EngineUnavailableError(
            f"There is no engine {name!r}; there are {', '.join(ENGINES)}."
        )
    try:
        engine: Engine = importlib.import_module(package).create_engine()
    except (ImportError, OSError) as error:
        raise EngineUnavailableError(f"The engine {name} cannot be loaded: {error}") from error
    return engine
