"""Loads a model in a thread beside the main loop, with progress, and stops when told to."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from services.backplane.process.cpus import usable_cpus
from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.model import LoadFailed, LoadPlan, LoadStep
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.metadata import Metadata
from services.neuron.engines.llamacpp.library.structs import PROGRESS_CALLBACK
from services.neuron.engines.llamacpp.model import offload
from services.neuron.engines.llamacpp.model.files import file_bytes
from services.neuron.engines.llamacpp.model.sizing import (
    DEFAULT_SEQUENCES,
    CacheShape,
    cache_shape,
)

PREFILL_TOKENS: Final = 64
"""Most prompt tokens per step: bounds how long a step keeps other streams and cancels waiting."""
_POLL_SECONDS: Final = 0.005
_MEAN_POOLING, _LAST_POOLING, _RANK_POOLING = 1, 3, 4  # enum llama_pooling_type
_CONFIG: Final = "config.json"
# Cache and working buffers may take so much of what is free; the rest is for everyone else.
_MEMORY_SHARE: Final = 0.9


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedFile:
    """What a load leaves behind; the pointers are the receiver's to free.

    Attributes:
        model, context: `llama_model *` and `llama_context *`.
        shape: of the cache.
        threads: that compute.
        held_bytes: memory that the load took, by device id, measured.
        facts: how it is divided between devices.
    """

    model: int
    context: int
    shape: CacheShape
    threads: int
    held_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])


Assemble = Callable[[LoadedFile], LoadedModel]


def load(
    library: Library, plan: LoadPlan, assemble: Assemble
) -> Generator[LoadStep, None, LoadedModel]:
    """Loads weights, makes a context and a model of both. Closing the generator abandons the load.

    Args:
        library: llama.cpp.
        plan: what to load: a GGUF file, or a folder with a BERT encoder.
        assemble: makes the model, in the loading thread; it owns the pointers from then on, and
            frees them where it fails.

    Raises:
        LoadFailed: with llama.cpp's own words.
    """
    path = _checked_path(plan)
    try:
        total = file_bytes(path)
    except OSError as error:
        raise LoadFailed("MODEL_FILE_BAD", f"{path.name} cannot be read: {error}") from error
    job = _LoadJob(library, plan, path, assemble)
    job.start()
    try:
        while not job.wait(_POLL_SECONDS):
            yield LoadStep(bytes_done=int(total * job.fraction), bytes_total=total)
    except BaseException:
        job.abandon()
        raise
    return job.result()


class _LoadJob:
    """The thread that loads. llama.cpp keeps the interpreter lock free meanwhile."""

    def __init__(self, library: Library, plan: LoadPlan, path: Path, assemble: Assemble) -> None:
        self._library = library
        self._plan = plan
        self._path = path
        self._assemble = assemble
        self._placement = offload.Placement(library, plan.offload)
        self._is_abandoned = threading.Event()
        self._outcome: LoadedModel | BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"load {plan.instance_id}")
        self.fraction = 0.0

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Stops the load at its next progress report and frees what it had taken."""
        self._is_abandoned.set()
        self._thread.join()
        if self._outcome is not None and not isinstance(self._outcome, BaseException):
            self._outcome.close()

    def result(self) -> LoadedModel:
        assert self._outcome is not None
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def _run(self) -> None:
        before = psutil.Process().memory_info().rss
        try:
            self._library.log.clear()
            loaded = self._load()
            grown = psutil.Process().memory_info().rss - before
            held = self._placement.held_bytes(
                self._library.log.buffers(),
                resident_bytes=max(0, grown),
                file_bytes=file_bytes(self._path),
            )
            self._outcome = self._assemble(dataclasses.replace(loaded, held_bytes=held))
        except BaseException as error:  # noqa: BLE001 - carried to the main thread, which raises it
            self._outcome = error

    def _on_progress(self, fraction: float, _: object) -> bool:
        self.fraction = fraction
        return not self._is_abandoned.is_set()

    def _load(self) -> LoadedFile:
        if not self._path.is_dir():
            self._refuse_too_large()
            return self._load_file(self._path)
        # A file without a name: it goes with the last who holds it, however this process ends.
        # llama.cpp maps it and holds it as long as the model.
        with tempfile.TemporaryFile() as file:
            path = Path(f"/proc/self/fd/{file.fileno()}")
            _convert(self._path, path)
            return self._load_file(path)

    def _refuse_too_large(self) -> None:
        """Before anything is read: what may be taken is a ceiling while it loads too."""
        most, weights = self._plan.memory_bytes, file_bytes(self._path)
        if most is not None and weights > most:
            raise LoadFailed(
                "OUT_OF_MEMORY",
                f"The weights take {weights >> 20} MiB, and {most >> 20} MiB are free on all"
                " devices together.",
            )

    def _load_file(self, path: Path) -> LoadedFile:
        library = self._library
        params = library.model_default_params()
        self._placement.fill(params)
        params.check_tensors = True  # NaN weights load silently otherwise, and babble
        callback = PROGRESS_CALLBACK(self._on_progress)
        params.progress_callback = ctypes.cast(callback, ctypes.c_void_p)
        model: int | None = library.model_load_from_file(os.fsencode(path), params)
        if model is None:
            words = library.log.last_words() or "no reason was given"
            reason = "OUT_OF_MEMORY" if _is_room_lacking(words) else "MODEL_FILE_BAD"
            raise LoadFailed(reason, f"llama.cpp cannot load {self._path.name}: {words}")
        try:
            return self._make_context(model)
        except BaseException:
            library.model_free(model)
            raise

    def _make_context(self, model: int) -> LoadedFile:
        metadata = Metadata(self._library, model)
        self._refuse_wrong_kind(metadata)
        shape = cache_shape(
            self._plan,
            trained_tokens=self._library.model_n_ctx_train(model),
            values_per_token=self._plan.cache_bytes_per_token // 2
            or metadata.values_per_cached_token,
            free_bytes=self._room(metadata),
        )
        threads = self._plan.threads or max(1, usable_cpus() // 2)
        params = self._context_params(metadata, shape, threads)
        context: int | None = self._library.init_from_model(model, params)
        if context is None:
            words = self._library.log.last_words() or "a buffer could not be allocated"
            # else it is the cache's format, which has no other room to wait for
            reason = "OUT_OF_MEMORY" if _is_room_lacking(words) else "LOAD_FAILED"
            raise LoadFailed(reason, f"llama.cpp cannot make the cache: {words}")
        devices, layers = self._placement.devices, metadata.layers
        facts = offload.described(self._plan.offload, devices, layers=layers)
        return LoadedFile(model, context, shape, threads, facts=facts)

    def _room(self, metadata: Metadata) -> int:
        """Bytes that the cache may take: what is free, within what the plan leaves it."""
        told = self._library.log.buffers()
        free = int(self._placement.free_bytes(told, layers=metadata.layers) * _MEMORY_SHARE)
        if self._plan.memory_bytes is None:
            return free
        weights = file_bytes(self._path)
        batch = (self._plan.max_sequences or DEFAULT_SEQUENCES) + PREFILL_TOKENS
        # logits of a step, which are computed and then copied out, and activations, in floats
        width = 2 * metadata.vocabulary_size + 16 * metadata.of_architecture("embedding_length")
        return max(0, min(free, self._plan.memory_bytes - weights - 4 * batch * width))

    def _refuse_wrong_kind(self, metadata: Metadata) -> None:
        if metadata.is_embedding_model and not self._plan.embedding:
            raise LoadFailed(
                "LOAD_FAILED",
                f"{self._path.name} is an embedding model and cannot generate; load it as one.",
            )
        if self._plan.embedding and metadata.pooling >= _RANK_POOLING:
            # it has scores where vectors are looked for, and fewer of them; or nobody knows what
            words = f"{self._path.name} is a reranker, or pools otherwise than to vectors."
            raise LoadFailed("LOAD_FAILED", words)

    def _context_params(self, metadata: Metadata, shape: CacheShape, threads: int) -> Any:
        params: Any = self._library.context_default_params()
        params.n_ctx = shape.total_tokens
        params.n_seq_max = shape.sequences
        params.n_threads = params.n_threads_batch = threads
        if self._plan.offload.flash_attention is not None:
            params.flash_attn_type = int(self._plan.offload.flash_attention)
        params.type_k = params.type_v = shape.ggml_type
        params.n_batch = params.n_ubatch = shape.sequences + PREFILL_TOKENS
        # Own room for every sequence: with shared room an overflow fails all of them.
        params.kv_unified = False
        # A layer with a window keeps that alone; checkpoints bring back what was cut.
        params.swa_full = False
        if self._plan.embedding:
            params.embeddings = True
            params.kv_unified = True
            params.n_ctx = params.n_batch = params.n_ubatch = shape.context_tokens
            if not metadata.pooling:  # of a generator's states only the last saw the whole text
                is_encoder = metadata.is_embedding_model
                params.pooling_type = _MEAN_POOLING if is_encoder else _LAST_POOLING
        return params


def _is_room_lacking(words: str) -> bool:
    """llama.cpp tells a device without room only in words."""
    return any(each in words.lower() for each in ("out of memory", "unable to allocate", "alloc"))


def _checked_path(plan: LoadPlan) -> Path:
    path = Path(plan.path)
    unsupported = {
        "draft_path": plan.draft_path is not None,
        "ngram_draft": plan.ngram_draft,
        "adapter_paths": bool(plan.adapter_paths),
    }
    for name, is_set in unsupported.items():
        if is_set:
            raise LoadFailed("LOAD_FAILED", f"The llama.cpp engine does not support {name}.")
    if os.path.isfile(path / _CONFIG):  # noqa: PTH113 - as below
        return path
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a folder is closed to us
        what = "is a folder, not a GGUF file" if os.path.isdir(path) else "cannot be found"  # noqa: PTH112
        raise LoadFailed("MODEL_FILE_BAD", f"{path.name} {what}.")
    return path


def _convert(folder: Path, target: Path) -> None:
    # Its library takes 0.2 s to import, which would delay every worker's start.
    from services.neuron.engines.llamacpp.model import bert_gguf

    try:
        bert_gguf.convert(folder, target)
    except (bert_gguf.BadBertError, OSError) as error:
        raise LoadFailed("MODEL_FILE_BAD", f"{folder.name}: {error}.") from error
