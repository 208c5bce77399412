"""How a prompt's segments are cut before they are tokenised. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.neuron.engine_api.task import Segment


def joined_runs(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Segments with touching plain runs joined: tokenising them apart gives other tokens."""
    plain = ""
    for segment in segments:
        if not segment.control:
            plain += segment.text
            continue
        if plain:
            yield Segment(plain)
            plain = ""
        yield segment
    if plain:
        yield Segment(plain)
