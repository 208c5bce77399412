"""Drafting by n-grams, without the library's crash on the shortest prompts."""

from __future__ import annotations

from typing import Any

from exllamav2.generator import ExLlamaV2DynamicGenerator


class NgramGenerator(ExLlamaV2DynamicGenerator):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """A generator that drafts only where every sequence has an n-gram to look up."""

    def iterate_ngram_gen(self, results: list[Any]) -> Any:
        """Drafts, or None: 0.3.2 reads past the end of sequences shorter than its n-grams."""
        shortest = min(
            (len(job.sequences[0].sequence_ids) for job in self.active_jobs),
            default=0,
        )
        if shortest < self.max_ngram - 1:
            return None
        return super().iterate_ngram_gen(results)
