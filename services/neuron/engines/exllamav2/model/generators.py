"""Makes the library's generator with our sizes, as often as one is lost to an exception."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.engines.exllamav2.library.faults import one_line
from services.neuron.engines.exllamav2.library.library import Library
from services.neuron.engines.exllamav2.model.sizing import PAGE, Shape

BUSY_CHUNK_TOKENS: Final = 512
"""Longest prefill chunk while others stream: what a new prompt may keep them waiting for."""
CHUNK_TOKENS: Final = 1024
"""Longest prefill chunk at all: what a cancel may have to wait for."""
IDLE_PREFILL_TOKENS: Final = 8192
"""Prompt tokens of all streams in one step while nobody waits for it."""
MOST_READS: Final = 4
"""Steps in a row that only read prompts, while nobody waits for a token and more prompts wait."""
SAMPLING_THREADS: Final = 1
"""The library's threads cost more than they bring but for many rows of a large vocabulary."""
MANY_SAMPLING_THREADS: Final = 16
MANY_LOGITS: Final = 4 << 20
"""Logits of a full step from which threads are worth it."""
_MAX_NGRAM: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class GeneratorParts:
    """What a generator works on; outlives it.

    Attributes:
        library: the opened library.
        shape: sizes of the load.
        model, cache, tokenizer: the library's objects.
        draft_model, draft_cache: None without a draft model.
        loras: adapters in use.
        tower: the vision tower, or None.
        quantisation: of the weights, by their tensors; empty for none.
        rank_bytes: of a model that is divided among ranks: what each holds, by its device.
    """

    library: Library
    shape: Shape
    model: Any
    cache: Any
    tokenizer: Any
    draft_model: Any = None
    draft_cache: Any = None
    loras: tuple[Any, ...] = ()
    tower: Any = None
    quantisation: str = ""
    rank_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])

    @property
    def has_ngram_draft(self) -> bool:
        """Drafts come from the text itself."""
        return self.shape.draft_tokens > 0 and self.draft_model is None

    @property
    def _sampling_threads(self) -> int:
        most = self.shape.sequences * int(self.model.config.vocab_size)
        return MANY_SAMPLING_THREADS if most >= MANY_LOGITS else SAMPLING_THREADS

    def make_generator(self) -> Any:
        """A generator with an empty page table over the same cache."""
        # It imports the library at its top.
        from services.neuron.engines.exllamav2.model.batch_generator import BatchGenerator

        made: Any = BatchGenerator(**self.generator_arguments)
        if self.rank_bytes:
            # It would move the pages of one rank alone.
            made.defrag_cache = _nothing
        if self.loras:
            made.set_loras(list(self.loras))
        return made

    @property
    def generator_arguments(self) -> dict[str, Any]:
        """What a generator of the library is made with."""
        shape = self.shape
        return {
            "model": self.model,
            "cache": self.cache,
            "tokenizer": self.tokenizer,
            "max_batch_size": shape.sequences,
            "max_chunk_size": min(CHUNK_TOKENS, shape.input_tokens),
            "max_q_size": 1 + shape.draft_tokens,
            "draft_model": self.draft_model,
            "draft_cache": self.draft_cache,
            "num_draft_tokens": max(1, shape.draft_tokens),
            "use_ngram_draft": self.has_ngram_draft,
            "max_ngram": _MAX_NGRAM,
            "paged": True,
            "max_sampling_threads": self._sampling_threads,
        }

    def remake_generator(self, lost: Any) -> Any:
        """Makes a new generator after an exception has left the old one unusable.

        Raises:
            EnginePoisoned: there is none to be had.
        """
        self.retire(lost)
        try:
            return self.make_generator()
        except Exception as error:
            raise EnginePoisoned(f"No new generator: {one_line(error)}") from error

    def set_chunk(self, generator: Any, *, is_busy: bool) -> None:
        """Bounds the prefill chunk of the next step.

        1. `BUSY_CHUNK_TOKENS` while others stream, `CHUNK_TOKENS` while nobody waits.
        2. Never more than one forward pass takes (`shape.input_tokens`).
        """
        generator.max_chunk_size = self.chunk_tokens(is_busy=is_busy)

    def chunk_tokens(self, *, is_busy: bool) -> int:
        """Longest prefill chunk; see `set_chunk`."""
        wanted = BUSY_CHUNK_TOKENS if is_busy else CHUNK_TOKENS
        return min(wanted, self.shape.input_tokens)

    @staticmethod
    def prefill_budget(*, is_busy: bool) -> int:
        """Prompt tokens that a step reads of all streams together, where there is a choice."""
        return BUSY_CHUNK_TOKENS if is_busy else IDLE_PREFILL_TOKENS

    @staticmethod
    def retire(generator: Any) -> None:
        """Ends a generator's threads; its pages are void."""
        # With one sampling thread it has no pool for it, not even an empty one.
        for pool in (getattr(generator, "sampling_pool", None), generator.filter_pool):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def used_tokens(generator: Any) -> int:
        """Cache that running jobs hold."""
        return len(generator.referenced_pages) * PAGE

    def release(self) -> None:
        """Frees the model's memory."""
        for module in (self.tower, self.draft_model, self.model):
            if module is not None:
                module.unload()


def _nothing() -> None: ...
