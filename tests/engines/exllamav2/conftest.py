from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.fleet.measuring import measured, pytest_terminal_summary

__all__ = ["measured", "pytest_terminal_summary"]

if TYPE_CHECKING:
    from services.neuron.engine_api.engine import Engine

# Without the engine's packages there is nothing to test here; scripts/test-exllamav2 brings them.
_WANTED = ("torch", "exllamav2", "tokenizers", "safetensors", "triton")
if any(importlib.util.find_spec(name) is None for name in _WANTED):
    collect_ignore_glob = ["*"]
else:
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
        from tests.engines.exllamav2 import emulation

        emulation.install()

    # Modules of the engine import the library at their top; attention must be in place before.
    from services.neuron.engines.exllamav2.library.library import open_library

    open_library()


@pytest.fixture(scope="session")
def engine() -> Engine:
    from services.neuron.engines import create_engine

    return create_engine("exllamav2")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that nobody changes."""
    from tests.engines.exllamav2 import folders

    return folders.build_random(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture
def loaded(engine: Engine, folder: Path) -> Iterator[Any]:
    """Loads models, which are closed in the end."""
    from tests.engines.exllamav2.loading_models import load

    models: list[Any] = []

    def make(path: Path = folder, **fields: Any) -> Any:
        models.append(load(engine, path, **fields))
        return models[-1]

    yield make
    for model in models:
        model.close()
