"""Pages of the cache that outlive their model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from services.neuron.engines.common.kv_store.hibernation import Hibernation, Kept, Savable
from services.neuron.engines.common.kv_store.prefix import Tokens, common_prefix
from services.neuron.engines.common.kv_store.sequence_file import SavedSequence
from services.neuron.engines.common.marks import Mark, saved_marks
from services.neuron.engines.exllamav2.model.sizing import PAGE
from services.neuron.engines.exllamav2.paging.copies import PageCopies, Run
from services.neuron.engines.exllamav2.paging.index import PageIndex, digests, root
from services.neuron.engines.exllamav2.paging.scoped_job import ScopedJob
from services.neuron.engines.exllamav2.paging.sequences import PagedSequence, Sequences, pages_of


class PageHibernation(Hibernation):
    """Saves the sequences of a paged cache, and brings them back into free pages.

    Args:
        copies: of the cache.
        kept: where, and which.
    """

    def __init__(self, copies: PageCopies, kept: Kept) -> None:
        super().__init__(kept)
        self._copies = copies

    def save_sequences(self, sequences: Sequences, generator: Any) -> tuple[int, int]:
        """Saves what is held of all sequences; see `save`."""
        index = PageIndex(generator)
        found = sequences.current(generator)
        return self.save(self._savable(one, index) for one in found)

    def wake(self, tokens: Sequence[int], job: ScopedJob, generator: Any) -> list[Mark]:
        """Brings back what is saved of a prompt and not in the cache, where it is worth it.

        Args:
            tokens: the whole prompt.
            job: which reads it, prepared; the pages that it wants are free.
            generator: whose pages they are.

        Returns: names of the beginnings that are back.
        """
        if self._store is None or job.is_restored:
            return []
        job.is_restored = True
        index = PageIndex(generator)
        wanted = digests(tokens, job.scope)
        there = sum(held.tokens for held in index.held(tokens, job.scope, wanted))
        entry = self.better(tokens, job.scope, than=min(there, len(tokens) - 1))
        if entry is None:
            return []
        useful = min(common_prefix(entry.tokens, tokens), len(tokens) - 1)

        def into_pages(sequence: SavedSequence) -> bool:
            copied = _Copied(generator, job, sequence.tokens[:useful], wanted[: useful // PAGE])
            runs = copied.take(index)
            try:
                self._copies.put(sequence.state, len(sequence.tokens), runs)
            except ValueError:
                return False
            copied.name()
            return True

        is_back = self._bring_back(entry, into_pages)
        return [mark for mark in entry.marks if is_back and mark[0] <= useful]

    def _savable(self, sequence: PagedSequence, index: PageIndex) -> Savable:
        def copy(most_bytes: int) -> SavedSequence | None:
            held = pages_of(sequence, index)
            tokens = sum(one.tokens for one in held)
            if tokens * self._copies.token_bytes > most_bytes:
                return None
            runs = [(int(one.page.page_index), one.tokens) for one in held]
            return SavedSequence(
                np.asarray(sequence.tokens[:tokens], dtype=np.int32),
                self._copies.taken(runs),
                marks=saved_marks(sequence.marks, tokens),
            )

        return Savable(sequence.scope, sequence.tokens[: sequence.held], copy)


class _Copied:
    """Free pages that become those of a saved sequence.

    Args:
        generator: whose they are.
        job: that will find them.
        tokens: of the sequence, as far as they are of use.
        wanted: digests of its whole pages.
    """

    def __init__(
        self, generator: Any, job: ScopedJob, tokens: Tokens, wanted: Sequence[bytes]
    ) -> None:
        self._generator = generator
        self._job = job
        self._tokens = tokens
        self._wanted = wanted
        self._taken: list[tuple[int, Any]] = []

    def take(self, index: PageIndex) -> list[tuple[int, Run]]:
        """Takes the pages that were used longest ago, never one that a job will look for.

        What is left behind the last whole page gets one only if the job needs none of the others.

        Returns: for `PageCopies.put`.
        """
        generator = self._generator
        looked_for = {one for job in generator.pending_jobs for one in job.all_unique_hashes}
        looked_for.update(self._job.all_unique_hashes)
        unused = generator.unreferenced_pages
        free = [page for digest, page in unused.items() if digest not in looked_for]
        free.sort(key=lambda page: page.access_serial, reverse=True)
        for at, digest in enumerate(self._wanted):
            if index.has(digest):
                continue
            if digest in generator.referenced_pages or not free:
                break  # it is being read for another, or there is no room
            # one that was named and not filled has its name, and no other may have it
            self._taken.append((at, unused.get(digest) or free.pop()))
        else:
            is_rest_worth = len(self._tokens) % PAGE > 1
            if is_rest_worth and len(free) > self._job.pages_wanted - len(self._taken):
                self._taken.append((len(self._wanted), free.pop()))
        for _, page in self._taken:
            page.clear()
        return [
            (at * PAGE, (int(page.page_index), min(PAGE, len(self._tokens) - at * PAGE)))
            for at, page in self._taken
        ]

    def name(self) -> None:
        """Gives the pages the names by which the job finds them."""
        generator = self._generator
        for at, page in self._taken:
            tokens = np.asarray(self._tokens[at * PAGE : (at + 1) * PAGE], dtype=np.int64)
            page.prev_hash = self._wanted[at - 1] if at else root(self._job.scope)
            page.sequence[0, : len(tokens)] = torch.from_numpy(tokens)
            page.kv_position = len(tokens)
            generator.access_serial += 1
            page.access_serial = generator.access_serial
            if at < len(self._wanted):
                del generator.unreferenced_pages[page.phash]
                page.phash = self._wanted[at]
                generator.unreferenced_pages[page.phash] = page
