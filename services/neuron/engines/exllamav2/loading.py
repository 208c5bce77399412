"""Loads a model folder: checks and sizes first, then weights module by module, then a trial."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import pathlib
import tempfile
from collections.abc import Generator, Iterator
from typing import Any

from services.neuron.engine import LoadFailed, LoadPlan, LoadStep
from services.neuron.engines.exllamav2 import sizing, weights
from services.neuron.engines.exllamav2.configuration import ModelFolder, legacy
from services.neuron.engines.exllamav2.faults import Fault, classify, one_line
from services.neuron.engines.exllamav2.generators import Parts
from services.neuron.engines.exllamav2.library import Library
from services.neuron.engines.exllamav2.sizing import Shape
from services.neuron.engines.exllamav2.weights import Weights

_HEAD_ROWS = 16
"""Longest output of the head: tokens of a step with drafts, and pieces of prompt logprobs."""
_CACHES = {
    "fp16": "ExLlamaV2Cache",
    "q8": "ExLlamaV2Cache_Q8",
    "q6": "ExLlamaV2Cache_Q6",
    "q4": "ExLlamaV2Cache_Q4",
}


def load(library: Library, plan: LoadPlan, folder: ModelFolder) -> Generator[LoadStep, None, Parts]:
    """Loads everything that a plan names. Closing the generator frees what was loaded.

    Raises:
        LoadFailed: with the library's own words.
    """
    read = weights.read(folder.path)
    draft = None if plan.draft_path is None else ModelFolder.read(pathlib.Path(plan.draft_path))
    shape = _shape(library, plan, folder, read, draft)
    made = _Loading(library, shape)
    try:
        with made.config_folder(folder) as place:
            yield from made.load_model(place, folder)
        if draft is not None:
            with made.config_folder(draft) as place:
                yield from made.load_draft(place)
        made.load_adapters(plan.adapter_paths)
        return made.parts()
    except LoadFailed:
        made.abandon()
        raise
    except Exception as error:
        made.abandon()
        is_memory = classify(error) is Fault.OUT_OF_MEMORY
        reason = "OUT_OF_MEMORY" if is_memory else "LOAD_FAILED"
        raise LoadFailed(reason, f"ExLlamaV2: {one_line(error)}") from error
    except BaseException:  # closed, or interrupted
        made.abandon()
        raise


def _shape(
    library: Library,
    plan: LoadPlan,
    folder: ModelFolder,
    read: Weights,
    draft: ModelFolder | None,
) -> Shape:
    other = 0
    per_token = 0.0
    if draft is not None:
        geometry = draft.geometry
        other = weights.read(draft.path).total
        many = weights.cache_bytes(geometry, tokens=sizing.PAGE, cache_format="fp16")
        per_token = many / sizing.PAGE
    return sizing.settle(
        plan,
        folder.geometry,
        read,
        free_bytes=library.free_bytes(),
        devices=max(1, library.torch.cuda.device_count()),
        other_bytes_per_token=per_token,
        other_bytes=other,
    )


class _Loading:
    """What a load has made so far."""

    def __init__(self, library: Library, shape: Shape) -> None:
        self._library = library
        self._shape = shape
        self._model: Any = None
        self._cache: Any = None
        self._tokenizer: Any = None
        self._draft_model: Any = None
        self._draft_cache: Any = None
        self._tower: Any = None
        self._loras: list[Any] = []

    @contextlib.contextmanager
    def config_folder(self, folder: ModelFolder) -> Generator[str]:
        """The folder, or one of links to its files with a `config.json` that 0.3.2 understands."""
        wanted = legacy(folder.config)
        if wanted == dict(folder.config):
            yield str(folder.path)
            return
        with tempfile.TemporaryDirectory(prefix="cortex-exllamav2-") as made:
            place = pathlib.Path(made)
            for file in folder.path.resolve().iterdir():
                if file.name != "config.json":
                    (place / file.name).symlink_to(file)
            (place / "config.json").write_text(json.dumps(wanted), encoding="utf-8")
            yield made

    def load_model(self, place: str, folder: ModelFolder) -> Generator[LoadStep, None, None]:
        """Weights and cache, over all visible devices, then the tokeniser and the tower."""
        package = self._library.exllamav2
        config = self._config(place)
        self._model = package.ExLlamaV2(config)
        made = getattr(package, _CACHES[self._shape.cache_format])
        self._cache = made(self._model, max_seq_len=self._shape.cache_tokens, lazy=True)
        yield from _weights(self._model, self._cache)
        self._tokenizer = package.ExLlamaV2Tokenizer(config)
        if folder.has_vision:
            self._tower = package.ExLlamaV2VisionTower(config)
            self._tower.load()

    def load_draft(self, place: str) -> Generator[LoadStep, None, None]:
        """The draft model, with a cache of the same length.

        Raises:
            LoadFailed: its vocabulary is another one.
        """
        package = self._library.exllamav2
        config = self._config(place)
        if abs(config.vocab_size - self._model.config.vocab_size) > _HEAD_ROWS * 16:
            raise LoadFailed("LOAD_FAILED", "The draft model has another vocabulary.")
        self._draft_model = package.ExLlamaV2(config)
        self._draft_cache = package.ExLlamaV2Cache(
            self._draft_model, max_seq_len=self._shape.cache_tokens, lazy=True
        )
        yield from _weights(self._draft_model, self._draft_cache)

    def load_adapters(self, paths: tuple[str, ...]) -> None:
        """LoRA adapters, all of them in use for every request.

        Raises:
            LoadFailed: the library refuses one.
        """
        for path in paths:
            try:
                made = self._library.exllamav2.ExLlamaV2Lora.from_directory(self._model, path)
            except (ValueError, AssertionError, KeyError, OSError) as error:
                raise LoadFailed("LOAD_FAILED", f"{path}: {one_line(error)}") from error
            self._loras.append(made)

    def parts(self) -> Parts:
        """What was loaded."""
        return Parts(
            library=self._library,
            shape=self._shape,
            model=self._model,
            cache=self._cache,
            tokenizer=self._tokenizer,
            draft_model=self._draft_model,
            draft_cache=self._draft_cache,
            loras=tuple(self._loras),
            tower=self._tower,
        )

    def abandon(self) -> None:
        """Frees what was loaded."""
        for module in (self._tower, self._draft_model, self._model):
            if module is not None:
                module.unload()
        self._model = self._cache = self._draft_model = self._draft_cache = self._tower = None
        gc.collect()
        self._library.torch.cuda.empty_cache()

    def _config(self, place: str) -> Any:
        shape = self._shape
        config = self._library.exllamav2.ExLlamaV2Config(place)
        config.arch_compat_overrides(quiet=True)
        # Long-context scaling of "su" models switches on beyond the original length; a table that
        # is longer than the context must not do that.
        is_stepped = config.alt_rope_method == "su"
        config.max_seq_len = shape.context_tokens if is_stepped else shape.table_tokens
        config.max_input_len = shape.input_tokens
        config.max_output_len = _HEAD_ROWS
        config.max_batch_size = 1
        return config


def _weights(model: Any, cache: Any) -> Generator[LoadStep, None, None]:
    """Loads module by module, with the cache beside, over all visible devices."""
    done = [0, *itertools.accumulate(int(module.weight_footprint()) for module in model.modules)]

    def report(index: int, total: int) -> Iterator[LoadStep]:
        yield LoadStep(done[index], done[-1], index, total)

    for step in model.load_autosplit_gen(cache, callback_gen=report):
        if step is not None:  # the library ends with a bare yield
            yield step
