"""Turns a load plan into a loaded model."""

from __future__ import annotations

import gc
import pathlib
from collections.abc import Generator

from typing_extensions import override

from services.neuron.engine_api.engine import Engine, LoadedModel
from services.neuron.engine_api.model import LoadPlan, LoadStep
from services.neuron.engines.exllamav2.files.configuration import ModelFolder
from services.neuron.engines.exllamav2.library.library import Library, open_library


class ExLlamaV2Engine(Engine):
    """Loads folders of safetensors on NVIDIA GPUs."""

    def __init__(self, library: Library) -> None:
        self._library = library

    @classmethod
    def open(cls) -> ExLlamaV2Engine:
        """Imports the library.

        Raises:
            EngineUnavailableError: it cannot run here; the message says what to do.
        """
        return cls(open_library())

    @property
    @override
    def name(self) -> str:
        return "exllamav2"

    @property
    @override
    def facts(self) -> dict[str, str]:
        """Versions and the attention backend."""
        return self._library.facts

    @override
    def load(self, plan: LoadPlan) -> Generator[LoadStep, None, LoadedModel]:
        # They import the library at their top, so they come after it was opened.
        from services.neuron.engines.exllamav2 import assembling
        from services.neuron.engines.exllamav2.model import loading

        folder = ModelFolder.read(pathlib.Path(plan.path))
        before = self._library.held_bytes()
        parts = yield from loading.load(self._library, plan, folder)
        try:
            return assembling.assemble(parts, plan, folder, before)
        except BaseException:
            parts.release()
            del parts
            gc.collect()
            self._library.torch.cuda.empty_cache()
            raise
