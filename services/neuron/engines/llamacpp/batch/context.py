"""One llama.cpp context: the forward pass and the cache of every sequence."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

import numpy as np

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.engines.common.logprobs import Row
from services.neuron.engines.llamacpp.batch.batch import TokenBatch
from services.neuron.engines.llamacpp.batch.threads import Threads
from services.neuron.engines.llamacpp.library.interruption import Interruption
from services.neuron.engines.llamacpp.library.library import Library

_ALL: Final = -1
_ABORTED: Final = 2
_INVALID: Final = -1
_WHOLE: Final = 0
_PARTIAL_ONLY: Final = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
# What `llama_decode` returns where the pass is lost and the context is not. Below -2 a backend has
# failed in the middle of its work, and what it says next is worth nothing.
_REFUSALS: Final[Mapping[int, tuple[Reason, str]]] = MappingProxyType(
    {
        1: (Reason.OUT_OF_MEMORY, "found no room in its cache"),
        _INVALID: (Reason.ENGINE_FAILED, "does not take these tokens"),
        -2: (Reason.OUT_OF_MEMORY, "got no memory to compute with"),
    }
)


class PassRefusedError(Exception):
    """llama.cpp did not run a pass; of its batch nothing, or a part, is in the cache.

    Attributes:
        reason: why, as the caller of a request is told.
        message: what llama.cpp could not do, with its own words.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Context:
    """Owns a `llama_context` and the model behind it; `close` frees both."""

    def __init__(self, library: Library, *, model: int, context: int, threads: Threads) -> None:
        self._library = library
        self._threads = threads
        self._model = model
        self._context = context
        self._memory: int | None = library.get_memory(context)
        vocabulary_size: int = library.vocab_n_tokens(library.model_get_vocab(model))
        self._row_type: Any = ctypes.c_float * vocabulary_size
        self._interruption = Interruption(library, context)
        self._window: int = library.model_n_swa(model)
        self._copied_to: int | None = None
        self._is_recurrent = bool(
            library.model_is_recurrent(model) or library.model_is_hybrid(model)
        )

    @property
    def handle(self) -> int:
        """The `llama_context *`, for samplers."""
        return self._context

    @property
    def needs_checkpoints(self) -> bool:
        """True if a sequence's cache cannot be cut back to any length: see `can_cut`."""
        return self._memory is not None and (self._is_recurrent or self._window > 0)

    @property
    def has_copies_to_make(self) -> bool:
        """True from a `copy` to the next pass, which moves the data: neither may be restored."""
        return self._copied_to is not None

    def interrupt(self) -> None:
        """Cuts a running `decode` short; safe to call from another thread."""
        if not self._is_recurrent:  # else what was read of the batch could not be taken back
            self._interruption.set()

    def decode(self, batch: TokenBatch) -> bool:
        """Runs the batch through the model.

        Returns: False if it was interrupted: what was read of the batch must be cut off again.

        Raises:
            PassRefusedError: the same holds; a smaller batch may do.
            EnginePoisoned: llama.cpp failed; with its own words.
        """
        self._interruption.clear()
        code = self._decode(batch)
        self._threads.note_pass()
        if code == _ABORTED:
            return False
        if code != 0:
            self._fail(code)
        return True

    def logits(self, place: int) -> Row:
        """(vocabulary,) float32: the row of one place of the last batch, writable, not a copy."""
        address: int | None = self._library.get_logits_ith(self._context, place)
        if address is None:
            raise EnginePoisoned(f"llama.cpp has no logits for place {place} of the batch.")
        row: Row = np.frombuffer(self._row_type.from_address(address), dtype=np.float32)
        return row

    def pooled(self, sequence: int, width: int) -> Row:
        """(width,) float32: a copy of a sequence's pooled embedding.

        Raises:
            FleetError: ENGINE_FAILED, there is none: models of this kind make none.
        """
        address: int | None = self._library.get_embeddings_seq(self._context, sequence)
        if address is None:
            raise FleetError(Reason.ENGINE_FAILED, "llama.cpp makes no vectors with this model.")
        values: Any = (ctypes.c_float * width).from_address(address)
        return np.frombuffer(values, dtype=np.float32).copy()

    def can_cut(self, sequence: int, length: int) -> bool:
        """True if what `cut` leaves of a sequence is all that its next token looks at."""
        if self._memory is None or length <= 0:
            return True
        # a recurrent layer holds its last position alone, a window the last so many
        first: int = self._library.memory_seq_pos_min(self._memory, sequence)
        return first == 0 or first < length - self._window

    def cut(self, sequence: int, length: int) -> bool:
        """Forgets all but the first tokens of a sequence; False where that cannot be done."""
        if self._memory is None:
            return True
        return bool(self._library.memory_seq_rm(self._memory, sequence, length, _ALL))

    def copy(self, source: int, target: int) -> None:
        """Makes a sequence's cache equal to another's."""
        if self._memory is not None:
            self._copied_to = target
            self._library.memory_seq_cp(self._memory, source, target, _ALL, _ALL)

    def save(self, sequence: int, *, most_bytes: int) -> bytes | None:
        """A copy of a sequence; None where it would be larger, or cannot be made."""
        return self._save(sequence, most_bytes, _WHOLE)

    def save_part(self, sequence: int, *, most_bytes: int) -> bytes | None:
        """As `save`, without what can be had by cutting a longer one."""
        return self._save(sequence, most_bytes, _PARTIAL_ONLY)

    def restore(self, sequence: int, state: bytes) -> bool:
        """Makes a sequence what it was when it was saved; False, and empty, where that failed.

        Only while there are no copies to make.
        """
        self.cut(sequence, 0)
        return self._restore(sequence, state, _WHOLE)

    def restore_part(self, sequence: int, state: bytes) -> bool:
        """Gives a sequence the part that `save_part` kept; False, and empty, where that failed.

        The rest must still be there, and is to be cut to the same length.
        """
        if self._window and not self._make_copies():
            return False
        return self._restore(sequence, state, _PARTIAL_ONLY)

    def _make_copies(self) -> bool:
        """Moves the data of copies now, as a restored window would be overwritten by it later."""
        target = self._copied_to
        if target is None:
            return True
        if self._is_recurrent:  # its state would have to be taken back
            return False
        length: int = self._library.memory_seq_pos_max(self._memory, target) + 1
        batch = TokenBatch(1)
        batch.add([0], sequence=target, position=length, want=False)
        code = self._decode(batch)  # any pass begins with it, also one that is refused later
        if code < 0 and code not in _REFUSALS:
            self._fail(code)
        return self.cut(target, length)

    def _decode(self, batch: TokenBatch) -> int:
        code: int = self._library.decode(self._context, batch.struct)
        if code != _INVALID:  # else it did not come as far as the copies
            self._copied_to = None
        return code

    def _fail(self, code: int) -> NoReturn:
        words = self._library.log.last_words()
        self._library.log.clear()  # the next failure has words of its own
        if code in _REFUSALS:
            reason, what = _REFUSALS[code]
            raise PassRefusedError(reason, f"llama.cpp {what} ({words or f'code {code}'})")
        raise EnginePoisoned(f"llama_decode returned {code}. {words}".rstrip())

    def _save(self, sequence: int, most_bytes: int, flags: int) -> bytes | None:
        wanted: int = self._library.state_seq_get_size_ext(self._context, sequence, flags)
        if not 0 < wanted <= most_bytes:
            return None
        buffer = ctypes.create_string_buffer(wanted)
        written: int = self._library.state_seq_get_data_ext(
            self._context, ctypes.addressof(buffer), wanted, sequence, flags
        )
        return buffer.raw if written == wanted else None

    def _restore(self, sequence: int, state: bytes, flags: int) -> bool:
        read: int = self._library.state_seq_set_data_ext(
            self._context, state, len(state), sequence, flags
        )
        if not state or read != len(state):
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
