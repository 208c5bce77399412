"""Turns a load plan into a loaded model."""

from __future__ import annotations

import gc
import pathlib
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from services.neuron.engine_api.engine import Engine, Grouped, LoadedModel
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.model import LoadPlan, LoadStep
from services.neuron.engines.exllamav2.files.configuration import ModelFolder
from services.neuron.engines.exllamav2.library.library import Library, open_library
from services.neuron.engines.exllamav2.parallel.group import Group

if TYPE_CHECKING:
    from services.neuron.engines.exllamav2.model.generators import GeneratorParts


class ExLlamaV2Engine(Engine, Grouped):
    """Loads folders of safetensors on NVIDIA GPUs, with other processes where it has ranks."""

    def __init__(self, library: Library, group: Group | None = None) -> None:
        self._library = library
        self._group = group
        self._shares = FairShares()

    @classmethod
    def open(cls, rank_device_ids: Sequence[str] = ()) -> ExLlamaV2Engine:
        """Imports the library.

        Args:
            rank_device_ids: GPUs among which all models are divided, this process's own first;
                empty for models in this process alone.

        Raises:
            EngineUnavailableError: it cannot run here; the message says what to do.
        """
        group = Group(rank_device_ids) if rank_device_ids else None
        if group is not None:
            group.spawn()  # they import the library at the same time
        return cls(open_library(), group)

    @property
    @override
    def shares(self) -> FairShares:
        return self._shares

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

        folder = ModelFolder.read(pathlib.Path(plan.path))
        before = self._library.held_bytes()
        parts = yield from self._parts(plan, folder)
        try:
            return assembling.assemble(parts, plan, folder, before, shares=self._shares)
        except BaseException:
            parts.release()
            del parts
            gc.collect()
            self._library.torch.cuda.empty_cache()
            raise

    @property
    @override
    def rank_pids(self) -> tuple[int, ...]:
        return () if self._group is None else self._group.pids

    def stop_ranks(self) -> None:
        """Ends the processes beside this one; models that are divided are of no use any more."""
        if self._group is not None:
            self._group.stop()

    def _parts(
        self, plan: LoadPlan, folder: ModelFolder
    ) -> Generator[LoadStep, None, GeneratorParts]:
        if self._group is None:
            from services.neuron.engines.exllamav2.model import loading

            return (yield from loading.load(self._library, plan, folder))
        from services.neuron.engines.exllamav2.parallel import loading as parallel_loading

        return (yield from parallel_loading.load(self._library, self._group, plan, folder))
