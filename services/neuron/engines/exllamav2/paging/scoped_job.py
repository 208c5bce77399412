"""A job of the library's generator that shares pages with its principal's jobs alone.

The library names pages by their tokens: whoever asks what another has asked would find his pages,
and see it by the time and by the count of cached tokens.

Source: ExLlamaV2DynamicJob in exllamav2/generator/dynamic.py (0.3.2).
"""

from __future__ import annotations

from typing import Any

from exllamav2.generator import ExLlamaV2DynamicJob

from services.neuron.engines.exllamav2.paging import index


class ScopedJob(ExLlamaV2DynamicJob):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """A job whose page digests are chained from its principal's, so that only they share pages.

    Attributes:
        scope: whose it is.
        is_woken: what is saved of its prompt was looked for.
    """

    def __init__(self, *, scope: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.scope = scope
        self.is_restored = False
        self._root = index.root(scope)
        self._is_rooted = False

    def prepare_for_queue(self, generator: Any, serial_number: int) -> None:
        """The library's, with the principal's digests of the prompt's whole pages."""
        super().prepare_for_queue(generator, serial_number)
        (sequence,) = self.sequences
        count = len(sequence.page_hashes) * generator.page_size
        ids = sequence.sequence_ids.torch_slice(0, count)[0].numpy()
        sequence.page_hashes = index.digests(ids, self.scope)
        self.all_unique_hashes = list(sequence.page_hashes)

    def prefill(self, results: list[Any]) -> None:
        """The library's, to which of all first pages only the principal's own look like some.

        Those are to it the pages that have nothing before them.
        """
        (sequence,) = self.sequences
        if self._is_rooted:
            return
        own = [] if sequence.kv_position else self._shown_roots()
        super().prefill(results)
        for page in own:
            page.prev_hash = self._root
        self._root_pages(sequence)

    def receive_sample(self, *arguments: Any, **named: Any) -> Any:
        """The library's, which names a first page that output has filled by its tokens alone."""
        (sequence,) = self.sequences
        fills_first = sequence.kv_position == self.generator.page_size - 1
        result = super().receive_sample(*arguments, **named)
        if fills_first:
            self._name_first_page(sequence)
        return result

    @property
    def pages_wanted(self) -> int:
        """How many unused pages it still needs, without shared ones; only once it is prepared."""
        return int(self.current_new_pages_required())

    @property
    def position(self) -> int:
        """How many tokens its pages hold."""
        return int(self.sequences[0].kv_position)

    @property
    def kept_tokens(self) -> list[int]:
        """The tokens whose keys and values its pages hold, in order."""
        (sequence,) = self.sequences
        ids: list[int] = sequence.sequence_ids.torch_slice(0, self.position)[0].tolist()
        return ids

    def _shown_roots(self) -> list[Any]:
        own = [page for page in self.generator.all_pages if page.prev_hash == self._root]
        for page in self.generator.all_pages:
            if page.prev_hash is None and not page.ref_count:
                page.kv_position = 0  # it lost its name, and is no first page of anybody's
        for page in own:
            page.prev_hash = None
        return own

    def _root_pages(self, sequence: Any) -> None:
        """Says what is before the first page, and before the one that output goes into."""
        allocated = sequence.allocated_pages
        allocated[0].prev_hash = self._root
        at = sequence.kv_position // self.generator.page_size
        if at and at < len(allocated):
            allocated[at].prev_hash = allocated[at - 1].phash
        self._is_rooted = self.is_prefill_done()

    def _name_first_page(self, sequence: Any) -> None:
        generator, page = self.generator, sequence.allocated_pages[0]
        ids = sequence.sequence_ids.torch_slice(0, generator.page_size)[0].numpy()
        (digest,) = index.digests(ids, self.scope)
        same = generator.referenced_pages.get(digest)
        if same is None:
            unused = generator.unreferenced_pages.get(digest)
            if unused is not None:
                unused.clear()
            page.update_hash(digest)
            page.prev_hash = self._root
        else:
            serial = page.access_serial
            page.sub_ref()
            page.clear()
            same.add_ref(serial)
            sequence.allocated_pages[0] = same
            sequence.block_index_tensor = None
        if len(sequence.allocated_pages) > 1:
            sequence.allocated_pages[1].prev_hash = digest
