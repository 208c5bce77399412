"""Streams that gave their place to others: their pages stay theirs as long as nobody needs them."""

from __future__ import annotations

from typing import Any

from services.neuron.engines.common.yielding import Yielding
from services.neuron.engines.exllamav2.batch.streams import Stream


class Suspension(Yielding[Stream]):
    """Takes streams out of the library's batch, job and pages and all, and puts them back."""

    def suspend(self, stream: Stream, generator: Any) -> None:
        """Its job makes no token any more; its pages stay."""
        if stream.job is not None:
            generator.active_jobs.remove(stream.job)
        self.give_up(stream)

    @property
    def last_with_pages(self) -> Stream | None:
        """The stream that was suspended last and still has its pages, or None."""
        return next((one for one in reversed(list(self)) if one.job is not None), None)
