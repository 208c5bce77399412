"""Which page of the cache holds which tokens, looked up by digests of the tokens.

A page that is full has a digest of its tokens and of all before them; one that is not is found by
the digest of the page before. The first page's digest begins with its principal, so that nobody
finds, or is told the time of, what another has asked.

Source: _tensor_blake2b_checksum and CachePage in exllamav2/generator/dynamic.py (0.3.2).
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from services.neuron.engines.common.kv_store.prefix import common_prefix
from services.neuron.engines.exllamav2.model.sizing import PAGE

Ids = npt.NDArray[np.int64]
_DIGEST_BYTES = 16


class Held(NamedTuple):
    """A page, and how many of its tokens match the wanted ones, counted from its first."""

    page: Any
    tokens: int


def root(scope: str) -> bytes:
    """The digest that a principal's page digests are chained from, so that no two share pages."""
    text = f"principal\0{scope}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def digests(tokens: Sequence[int], scope: str) -> list[bytes]:
    """Digests of all whole pages of a sequence, each chained to the one before, for a principal."""
    ids: Ids = np.asarray(tokens, dtype=np.int64)
    found: list[bytes] = []
    before = root(scope)
    for begin in range(0, len(ids) - PAGE + 1, PAGE):
        page = ids[begin : begin + PAGE].tobytes()
        before = hashlib.blake2b(before + page, digest_size=_DIGEST_BYTES).digest()
        found.append(before)
    return found


class PageIndex:
    """What the pages of a generator hold at one moment."""

    def __init__(self, generator: Any) -> None:
        self._whole: dict[bytes, Any] = {}
        self._begun: dict[bytes, list[Any]] = collections.defaultdict(list)
        for page in generator.all_pages:
            if page.kv_position == PAGE:
                self._whole[page.phash] = page
            if page.kv_position and page.prev_hash is not None:
                self._begun[page.prev_hash].append(page)

    def has(self, digest: bytes) -> bool:
        """True if a whole page with this digest is in the cache."""
        return digest in self._whole

    def held(self, tokens: Sequence[int], scope: str, found: Sequence[bytes]) -> list[Held]:
        """The pages that hold the beginning of a sequence, as far as it is in the cache.

        Args:
            tokens: the sequence.
            scope: whose it is.
            found: its `digests`.
        """
        pages: list[Held] = []
        before = root(scope)
        for digest in found:
            page = self._whole.get(digest)
            if page is None:
                break
            pages.append(Held(page, PAGE))
            before = digest
        rest = tokens[len(pages) * PAGE : (len(pages) + 1) * PAGE]
        alike = [Held(page, _alike(page, rest)) for page in self._begun.get(before, ())]
        best = max(alike, key=lambda one: one.tokens, default=None)
        if best is not None and best.tokens:
            pages.append(best)
        return pages


def _alike(page: Any, tokens: Sequence[int]) -> int:
    if not tokens:
        return 0
    return common_prefix(page.sequence[0, : page.kv_position].numpy(), np.asarray(tokens))
