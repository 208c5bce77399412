"""One rank's model: its part of the weights and of the cache, and what is done to both in step."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Generator, Iterator
from typing import Any

import torch
from exllamav2 import ExLlamaV2  # pyright: ignore[reportAttributeAccessIssue]
from exllamav2.attn_params import PagedParams

from services.neuron.engine_api.model import LoadFailed
from services.neuron.engines.exllamav2.files.configuration import ModelFolder
from services.neuron.engines.exllamav2.library.faults import Fault, classify, one_line
from services.neuron.engines.exllamav2.library.library import Library
from services.neuron.engines.exllamav2.model import loading
from services.neuron.engines.exllamav2.model.sizing import PAGE, Shape
from services.neuron.engines.exllamav2.parallel import modules
from services.neuron.engines.exllamav2.parallel.collectives import Collectives
from services.neuron.engines.exllamav2.parallel.messages import CopyStates, RunForward, RunHead
from services.neuron.engines.exllamav2.parallel.slices import IndivisibleError


class RankModel:
    """A model on one rank, from its empty modules to its release.

    Attributes:
        model, cache: the library's objects.
        config: of the library.
        collectives: with the other ranks.
    """

    def __init__(
        self,
        library: Library,
        collectives: Collectives,
        shape: Shape,
        *,
        path: pathlib.Path,
        kind: type[Any] = ExLlamaV2,
    ) -> None:
        """Makes the modules, all of them still empty.

        Args:
            library: the opened library.
            collectives: with the other ranks.
            shape: sizes of the load, the same on every rank.
            path: the model's folder.
            kind: the class of the model.

        Raises:
            LoadFailed: the folder is not for this engine, or cannot be read.
        """
        self._library = library
        self._held_before = self._held()
        self._places = contextlib.ExitStack()
        self._shape = shape
        self.collectives = collectives
        try:
            with failing_alone():
                self._open(path, kind)
        except LoadFailed:
            self._places.close()
            raise
        self._steps = self._load()

    def _open(self, path: pathlib.Path, kind: type[Any]) -> None:
        library, shape, collectives = self._library, self._shape, self.collectives
        folder = ModelFolder.read(path)
        place = self._places.enter_context(loading.config_folder(folder))
        self.config = loading.library_config(library, shape, place, folder)
        modules.shrink(self.config, collectives.rank.count)
        self.model: Any = kind(self.config)
        modules.divide(self.model, collectives)
        made = getattr(library.exllamav2, loading.CACHES[shape.cache_format])
        self.cache: Any = made(self.model, max_seq_len=shape.cache_tokens, lazy=True)

    @property
    def module_count(self) -> int:
        """Steps of the load: the modules, and the cache."""
        return len(self.model.modules) + 1

    def module_bytes(self) -> list[int]:
        """Bytes of each module, over all ranks."""
        return [int(module.weight_footprint()) for module in self.model.modules]

    def advance(self) -> None:
        """Loads the next module, or, behind them, makes the cache.

        Raises:
            LoadFailed: with the library's own words.
        """
        with failing_alone():
            next(self._steps)

    def held_bytes(self) -> int:
        """Device memory that it has taken since before it was made."""
        return max(0, self._held() - self._held_before)

    def release(self) -> None:
        """Frees all of it."""
        self._steps.close()
        self._places.close()
        if self.model is not None:
            self.model.unload()
        self.model = self.cache = None

    def run(self, order: RunForward) -> Any:
        """Runs a forward pass as rank 0 runs it."""
        ids = _tensor(order.token_ids, torch.long).view(order.rows, order.length)
        options = {"preprocess_only": order.is_prefill, "last_id_only": order.is_last_only}
        if order.pages is None:
            return self.model.forward_chunk(ids, **options)
        pages = _tensor(order.pages, torch.int32).view(order.rows, -1)
        positions = _tensor(order.positions, torch.int32)
        table = PagedParams(order.rows, pages, positions, order.longest, PAGE, order.length)
        return self.model.forward_chunk(ids, cache=self.cache, attn_params=table, **options)

    def run_head(self, order: RunHead) -> None:
        """Runs the head alone, on the states that rank 0 sends meanwhile."""
        head = self.model.modules[self.model.head_layer_idx]
        with torch.inference_mode():
            states = torch.empty(order.shape, dtype=torch.half, device=head.device())
            self.collectives.broadcast(states)
            head.forward(states)

    def copy_states(self, order: CopyStates) -> None:
        """Copies tokens within the cache."""
        span = order.tokens
        self.cache.copy_states(self.cache, order.source, span, order.target, span, 0, 1, 0, 1)

    def _load(self) -> Generator[None, None, None]:
        def at_each(_index: int, _of: int) -> Iterator[None]:
            yield

        steps = self.model.load_gen(callback_gen=at_each)
        with contextlib.closing(steps):
            next(steps)  # it reports before each module, and once behind the last
            for _ in range(len(self.model.modules)):
                next(steps)
                with torch.inference_mode(mode=False):
                    yield
            for _ in steps:
                pass
        with torch.inference_mode():
            self.cache.update_cache_tensors()
        self._places.close()
        yield

    def _held(self) -> int:
        return sum(self._library.held_bytes().values())


@contextlib.contextmanager
def failing_alone() -> Generator[None]:
    """Turns an exception within into a failed load, so that the rank's process goes on.

    Raises:
        LoadFailed: with the library's own words.
    """
    try:
        yield
    except LoadFailed:
        raise
    except IndivisibleError as error:
        raise LoadFailed("LOAD_FAILED", str(error)) from error
    except Exception as error:
        is_memory = classify(error) is Fault.OUT_OF_MEMORY
        reason = "OUT_OF_MEMORY" if is_memory else "LOAD_FAILED"
        raise LoadFailed(reason, f"ExLlamaV2: {one_line(error)}") from error


def _tensor(data: bytes, kind: Any) -> Any:
    return torch.frombuffer(bytearray(data), dtype=kind)
