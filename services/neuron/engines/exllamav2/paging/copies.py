"""Copies of the cache's pages in the host's memory, as the cache has them.

Tensor by tensor: keys and values of each layer and, where the cache is quantised, their scales;
those of a draft model's cache behind them. In each, the rows of the sequence's tokens in order.

Source: ExLlamaV2CacheBase.all_tensors in exllamav2/cache.py (0.3.2): (1, tokens, heads, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from services.neuron.engines.exllamav2.model.sizing import PAGE

Run = tuple[int, int]
"""A page's place in the cache, and how many of its first tokens."""


class PageCopies:
    """Copies pages of a model's KV cache to host memory, and back.

    Args:
        caches: the library's, the model's own first.
    """

    def __init__(self, caches: Sequence[Any]) -> None:
        self._tensors: list[Any] = [tensor for cache in caches for tensor in cache.all_tensors()]
        self._devices = {tensor.device for tensor in self._tensors}

    @property
    def token_bytes(self) -> int:
        """Bytes that one token takes in all tensors."""
        return sum(_row_bytes(tensor) for tensor in self._tensors)

    def taken(self, runs: Sequence[Run]) -> bytes:
        """The rows of a sequence that lies in these pages."""
        tokens = sum(count for _, count in runs)
        parts: list[Any] = []
        with torch.inference_mode():
            self._settle()
            for tensor in self._tensors:
                rows = _paged(tensor).index_select(0, _places(runs, tensor.device))
                flat = rows.flatten(0, 1)[:tokens].contiguous()
                parts.append(flat.view(torch.uint8).cpu().numpy().data)
        return b"".join(parts)

    def put(self, state: bytes, tokens: int, runs: Sequence[tuple[int, Run]]) -> None:
        """Puts rows of a sequence into pages.

        Args:
            state: what `taken` gave.
            tokens: how many it is of.
            runs: the first token of each run, and where it goes.

        Raises:
            ValueError: it is of another length.
        """
        if len(state) != tokens * self.token_bytes:
            raise ValueError("The saved pages are of another length.")
        offset = 0
        with torch.inference_mode():
            self._settle()
            for tensor in self._tensors:
                size = _row_bytes(tensor)
                for first, (place, count) in runs:
                    begin = offset + first * size
                    data = np.frombuffer(state, np.uint8, count * size, begin).copy()
                    rows = torch.from_numpy(data).view(tensor.dtype)
                    target = tensor[0, place * PAGE : place * PAGE + count]
                    target.copy_(rows.view(target.shape))
                offset += tokens * size
            self._settle()

    def _settle(self) -> None:
        """Waits for what was begun: passes run on streams of the library's own."""
        for device in self._devices:
            torch.cuda.synchronize(device)


def _paged(tensor: Any) -> Any:
    return tensor.view(-1, PAGE, *tensor.shape[2:])


def _places(runs: Sequence[Run], device: Any) -> Any:
    return torch.tensor([place for place, _ in runs], dtype=torch.long, device=device)


def _row_bytes(tensor: Any) -> int:
    width: int = tensor.shape[2] * tensor.shape[3] * tensor.element_size()
    return width
