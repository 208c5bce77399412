"""One llama.cpp context: the forward pass and the cache of every sequence."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np

from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.engines.common.logprobs import Row
from services.neuron.engines.llamacpp.batch.batch import TokenBatch
from services.neuron.engines.llamacpp.library.interruption import Interruption
from services.neuron.engines.llamacpp.library.library import Library

_ALL: Final = -1
_ABORTED: Final = 2


class Context:
    """Owns a `llama_context` and the model behind it; `close` frees both."""

    def __init__(self, library: Library, *, model: int, context: int) -> None:
        self._library = library
        self._model = model
        self._context = context
        self._memory: int | None = library.get_memory(context)
        vocabulary_size: int = library.vocab_n_tokens(library.model_get_vocab(model))
        self._row_type: Any = ctypes.c_float * vocabulary_size
        self._interruption = Interruption(library, context)
        self._is_seekable = not (
            library.model_is_recurrent(model) or library.model_is_hybrid(model)
        )

    @property
    def handle(self) -> int:
        """The `llama_context *`, for samplers."""
        return self._context

    @property
    def can_share_prefixes(self) -> bool:
        """True if a sequence's cache can be cut back and copied (not so for recurrent models)."""
        return self._is_seekable and self._memory is not None

    def interrupt(self) -> None:
        """Cuts a running `decode` short; safe to call from another thread."""
        if self.can_share_prefixes:  # otherwise what was read of the batch could not be taken back
            self._interruption.set()

    def decode(self, batch: TokenBatch) -> bool:
        """Runs the batch through the model.

        Returns: False if it was interrupted: what was read of the batch must be cut off again.

        Raises:
            EnginePoisoned: llama.cpp failed; with its own words.
        """
        self._interruption.clear()
        code: int = self._library.decode(self._context, batch.struct)
        if code == _ABORTED:
            return False
        if code != 0:
            words = self._library.log.last_words()
            raise EnginePoisoned(f"llama_decode returned {code}. {words}".rstrip())
        return True

    def logits(self, place: int) -> Row:
        """(vocabulary,) float32: the row of one place of the last batch, writable, not a copy."""
        address: int | None = self._library.get_logits_ith(self._context, place)
        if address is None:
            raise EnginePoisoned(f"llama.cpp has no logits for place {place} of the batch.")
        row: Row = np.frombuffer(self._row_type.from_address(address), dtype=np.float32)
        return row

    def pooled(self, sequence: int, width: int) -> Row:
        """(width,) float32: a copy of a sequence's pooled embedding."""
        address: int | None = self._library.get_embeddings_seq(self._context, sequence)
        if address is None:
            raise EnginePoisoned(f"llama.cpp has no embedding for sequence {sequence}.")
        values: Any = (ctypes.c_float * width).from_address(address)
        return np.frombuffer(values, dtype=np.float32).copy()

    def cut(self, sequence: int, length: int) -> bool:
        """Forgets all but the first tokens of a sequence; False where that cannot be done."""
        if self._memory is None:
            return True
        return bool(self._library.memory_seq_rm(self._memory, sequence, length, _ALL))

    def copy(self, source: int, target: int) -> None:
        """Makes a sequence's cache equal to another's."""
        if self._memory is not None:
            self._library.memory_seq_cp(self._memory, source, target, _ALL, _ALL)

    def save(self, sequence: int, *, most_bytes: int) -> bytes | None:
        """A copy of a sequence; None where it would be larger, or cannot be made."""
        wanted: int = self._library.state_seq_get_size(self._context, sequence)
        if not 0 < wanted <= most_bytes:
            return None
        buffer = ctypes.create_string_buffer(wanted)
        written: int = self._library.state_seq_get_data(
            self._context, ctypes.addressof(buffer), wanted, sequence
        )
        return buffer.raw if written == wanted else None

    def restore(self, sequence: int, state: bytes) -> bool:
        """Makes a sequence what it was when it was saved; False, and empty, where that failed."""
        self.cut(sequence, 0)
        read: int = self._library.state_seq_set_data(self._context, state, len(state), sequence)
        if read != len(state):
            self.cut(sequence, 0)
            return False
        return True

    def clear(self) -> None:
        """Forgets every sequence."""
        if self._memory is not None:
            self._library.memory_clear(self._memory, False)

    def close(self) -> None:
        """Frees context and model; nothing may be called afterwards."""
        self._library.free(self._context)
        self._library.model_free(self._model)
