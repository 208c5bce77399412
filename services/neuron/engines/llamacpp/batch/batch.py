"""The tokens that go through the model together in one step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.neuron.engines.llamacpp.library.structs import Batch


class TokenBatch:
    """A `llama_batch` whose arrays are numpy's, so that filling it costs little.

    Bound: `capacity` tokens.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        self._sequence_counts = np.ones(capacity, np.int32)
        # llama.cpp wants a pointer to each token's list of sequences; each list has one.
        step = self._sequences.itemsize
        start = self._sequences.ctypes.data
        self._sequence_pointers = np.arange(start, start + step * capacity, step, dtype=np.uintp)
        self.struct = Batch(
            n_tokens=0,
            token=self._tokens.ctypes.data,
            embd=None,
            pos=self._positions.ctypes.data,
            n_seq_id=self._sequence_counts.ctypes.data,
            seq_id=self._sequence_pointers.ctypes.data,
            logits=self._wanted.ctypes.data,
        )
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def clear(self) -> None:
        """Makes it empty."""
        self._size = self.struct.n_tokens = 0

    def add(
        self, token_ids: Sequence[int], *, sequence: int, position: int, want: bool | None
    ) -> int:
        """Appends tokens of one sequence.

        Args:
            token_ids: in order.
            sequence: whose they are.
            position: of the first of them in its sequence.
            want: logits of all (True), of the last one alone (None) or of none (False).

        Returns: the place of the last one in the batch.
        """
        start, end = self._size, self._size + len(token_ids)
        self._tokens[start:end] = token_ids
        self._positions[start:end] = np.arange(position, position + len(token_ids))
        self._sequences[start:end] = sequence
        self._wanted[start:end] = bool(want)
        if want is None:
            self._wanted[end - 1] = 1
        self._size = self.struct.n_tokens = end
        return end - 1

    def add_one(self, token_id: int, *, sequence: int, position: int) -> int:
        """Appends one token whose logits are wanted; returns its place in the batch."""
        place = self._size
        self._tokens[place] = token_id
        self._positions[place] = position
        self._sequences[place] = sequence
        self._wanted[place] = 1
        self._size = self.struct.n_tokens = place + 1
        return place
