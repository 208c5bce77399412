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

from services.neuron.engine_api.model import LoadFailed, LoadPlan, LoadStep
from services.neuron.engines.exllamav2.files import weights
from services.neuron.engines.exllamav2.files.configuration import ModelFolder
from services.neuron.engines.exllamav2.files.weights import TensorSizes
from services.neuron.engines.exllamav2.library import corrections, rotary
from services.neuron.engines.exllamav2.library.faults import Fault, classify, one_line
from services.neuron.engines.exllamav2.library.library import Library
from services.neuron.engines.exllamav2.model import adapters, sizing, vision
from services.neuron.engines.exllamav2.model.generators import GeneratorParts
from services.neuron.engines.exllamav2.model.sizing import Shape

_HEAD_ROWS = 16
"""Longest output of the head: tokens of a step with drafts, and pieces of prompt logprobs."""
_MOST_TRIES = 4
"""Of one load, each with a smaller cache where its size is left open."""
_OLD_ATTENTION = (
    "The model needs soft caps or sliding windows, which the installed flash-attn does not have:"
    " update it, or set CORTEX_EXLLAMAV2_ATTENTION=triton."
)
CACHES = {
    "fp16": "ExLlamaV2Cache",
    "q8": "ExLlamaV2Cache_Q8",
    "q6": "ExLlamaV2Cache_Q6",
    "q4": "ExLlamaV2Cache_Q4",
}


def load(
    library: Library, plan: LoadPlan, folder: ModelFolder
) -> Generator[LoadStep, None, GeneratorParts]:
    """Loads everything that a plan names. Closing the generator frees what was loaded.

    What runs out of memory with a cache of an open size begins again with a smaller one.

    Raises:
        LoadFailed: with the library's own words.
    """
    read = weights.read(folder.path)
    draft = None if plan.draft_path is None else ModelFolder.read(pathlib.Path(plan.draft_path))
    shape = _shape(library, plan, folder, read, draft)
    for _ in range(_MOST_TRIES - 1):
        try:
            return (yield from _try_shape(library, plan, folder, read, draft=draft, shape=shape))
        except LoadFailed as error:
            less = sizing.smaller(plan, shape)
            if error.reason != "OUT_OF_MEMORY" or less is None:
                raise
        shape = less
    return (yield from _try_shape(library, plan, folder, read, draft=draft, shape=shape))


def _try_shape(
    library: Library,
    plan: LoadPlan,
    folder: ModelFolder,
    read: TensorSizes,
    *,
    draft: ModelFolder | None,
    shape: Shape,
) -> Generator[LoadStep, None, GeneratorParts]:
    made = _Loading(library, shape)
    try:
        with contextlib.ExitStack() as places:
            made.open_model(places.enter_context(config_folder(folder)), folder)
            if draft is not None:
                made.open_draft(places.enter_context(config_folder(draft)), draft)
            yield from made.load_weights()
        made.load_adapters(plan.adapter_paths)
        return made.parts(read.quantisation)
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
    read: TensorSizes,
    draft: ModelFolder | None,
) -> Shape:
    other = sum(adapters.size(path) for path in plan.adapter_paths)
    per_token = 0.0
    if draft is not None:
        geometry = draft.geometry
        other += weights.read(draft.path).total
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

    def open_model(self, place: str, folder: ModelFolder) -> None:
        """The model's modules, its tokeniser and its tower, all of them still empty."""
        package = self._library.exllamav2
        config = library_config(self._library, self._shape, place, folder)
        self._model = package.ExLlamaV2(config)
        made = getattr(package, CACHES[self._shape.cache_format])
        self._cache = made(self._model, max_seq_len=self._shape.cache_tokens, lazy=True)
        self._tokenizer = package.ExLlamaV2Tokenizer(config)
        if folder.has_vision:
            self._tower = vision.open_tower(package, config)

    def open_draft(self, place: str, folder: ModelFolder) -> None:
        """The draft model's modules, with a cache of the same length.

        Raises:
            LoadFailed: its vocabulary is another one.
        """
        package = self._library.exllamav2
        config = library_config(self._library, self._shape, place, folder)
        if abs(config.vocab_size - self._model.config.vocab_size) > _HEAD_ROWS * 16:
            raise LoadFailed("LOAD_FAILED", "The draft model has another vocabulary.")
        self._draft_model = package.ExLlamaV2(config)
        self._draft_cache = package.ExLlamaV2Cache(
            self._draft_model, max_seq_len=self._shape.cache_tokens, lazy=True
        )

    def load_weights(self) -> Generator[LoadStep, None, None]:
        """Module by module. The model comes last: it alone can be split over what is left."""
        wholes = [whole for whole in (self._tower, self._draft_model, self._model) if whole]
        sizes = [int(module.weight_footprint()) for whole in wholes for module in whole.modules]
        done = [0, *itertools.accumulate(sizes)]
        before = 0

        def report(index: int, _of: int) -> Iterator[LoadStep]:
            at = before + index
            yield LoadStep(done[at], done[-1], at, len(sizes))

        for whole in wholes:
            if whole is self._tower:
                steps = whole.load_gen(callback_gen=report)
            else:
                cache = self._cache if whole is self._model else self._draft_cache
                steps = whole.load_autosplit_gen(cache, callback_gen=report)
            with contextlib.closing(steps):
                yield from self._suspended(steps)
            before += len(whole.modules)

    def _suspended(self, steps: Iterator[LoadStep | None]) -> Generator[LoadStep, None, None]:
        """Steps of the library, outside its inference mode, which it never leaves on a yield.

        Whoever has its turn meanwhile would make tensors that threads cannot write to.
        """
        for step in steps:
            if step is not None:  # the library ends with a bare yield
                with self._library.torch.inference_mode(mode=False):
                    yield step

    def load_adapters(self, paths: tuple[str, ...]) -> None:
        """LoRA adapters, all of them in use for every request.

        Raises:
            LoadFailed: one does not fit the model, or cannot be read.
        """
        for path in paths:
            self._loras.append(adapters.load(self._library, self._model, path))

    def parts(self, quantisation: str) -> GeneratorParts:
        """What was loaded."""
        return GeneratorParts(
            library=self._library,
            shape=self._shape,
            model=self._model,
            cache=self._cache,
            tokenizer=self._tokenizer,
            draft_model=self._draft_model,
            draft_cache=self._draft_cache,
            loras=tuple(self._loras),
            tower=self._tower,
            quantisation=quantisation,
        )

    def abandon(self) -> None:
        """Frees what was loaded."""
        for module in (self._tower, self._draft_model, self._model):
            if module is not None:
                module.unload()
        self._model = self._cache = self._draft_model = self._draft_cache = self._tower = None
        gc.collect()
        self._library.torch.cuda.empty_cache()


def library_config(library: Library, shape: Shape, place: str, folder: ModelFolder) -> Any:
    """The library's configuration of a load.

    Args:
        library: the opened library.
        shape: sizes of the load.
        place: the folder as the library understands it, see `config_folder`.
        folder: the model's own.

    Raises:
        LoadFailed: the attention that is installed does not do for the model.
    """
    config = library.exllamav2.ExLlamaV2Config(place)
    config.arch_compat_overrides(quiet=True)
    if config.no_flash_attn:
        raise LoadFailed("LOAD_FAILED", _OLD_ATTENTION)
    corrections.correct(config, folder.architecture)
    rotary.remember(config, rotary.Trained(folder.rope_scaling, folder.geometry.context))
    # Long-context scaling of "su" models switches on beyond the original length; a table that
    # is longer than the context must not do that.
    is_stepped = config.alt_rope_method == "su"
    config.max_seq_len = shape.context_tokens if is_stepped else shape.table_tokens
    config.max_input_len = shape.input_tokens
    config.max_output_len = _HEAD_ROWS
    config.max_batch_size = 1
    return config


@contextlib.contextmanager
def config_folder(folder: ModelFolder) -> Generator[str]:
    """The folder, or one of links to its files with some as 0.3.2 understands them."""
    rewritten = folder.rewritten()
    if not rewritten:
        yield str(folder.path)
        return
    with tempfile.TemporaryDirectory(prefix="cortex-exllamav2-") as made:
        place = pathlib.Path(made)
        for file in folder.path.resolve().iterdir():
            if file.name not in rewritten:
                (place / file.name).symlink_to(file)
        for name, content in rewritten.items():
            (place / name).write_text(json.dumps(content), encoding="utf-8")
        yield made
