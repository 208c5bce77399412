"""Suspended streams: their job leaves the batch, its pages stay until somebody needs them."""

from __future__ import annotations

from typing import Any

from services.neuron.engines.common.yielding import Yielding
from services.neuron.engines.exllamav2.batch.streams import Stream


class Suspension(Yielding[Stream]):
    """Takes streams out of the library's batch, job and pages and all, and puts them back."""

    def suspend(self, stream: Stream, generator: Any) -> None:
        """Stops a stream's job; it keeps its pages."""
        if stream.job is not None:
            generator.active_jobs.remove(stream.job)
        self.give_up(stream)

    @property
    def last_with_pages(self) -> Stream | None:
        """The stream that was suspended last and still has its pages, or None."""
        return next((one for one in reversed(list(self)) if one.job is not None), None)
