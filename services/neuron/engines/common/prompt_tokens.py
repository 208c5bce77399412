"""Lower bounds on a prompt's token count, found piece by piece. Pure.

With them a prompt is found to be too long without tokenising all of it. What may fit is tokenised
as a whole, because a text cut in two gives other tokens at the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from services.neuron.engine_api.task import Prompt, Segment

PIECE_CHARACTERS: Final = 128 << 10
"""A tenth of a second of a tokeniser's time, about."""


def min_token_counts(
    prompt: Prompt, *, count: Callable[[str], int], longest_token: int, kept_bytes: bytes
) -> Iterator[int]:
    """Lower bounds on a prompt's token count; each is at least the one before it.

    1. Token ids are their own count; nothing else is told.
    2. The first bound needs no tokenising: bytes that are surely kept, by the longest token's.
    3. Each further bound adds the tokens of one more piece, of `PIECE_CHARACTERS` at most.
    4. From each piece of a text that was cut, twice `longest_token` and two more are taken off: a
       cut breaks one token on each side, into as many as it has bytes; the frame that a model puts
       around a text takes the other two.

    Args:
        prompt: what is measured.
        count: the number of tokens of a plain text.
        longest_token: bytes of the vocabulary's longest token.
        kept_bytes: those that are found again in the tokens wherever they occur in a text; see
            `single_bytes`. With them the first number needs no tokenising.
    """
    if prompt.token_ids is not None:
        yield len(prompt.token_ids)
        return
    runs = list(joined_runs(prompt.segments))
    by_bytes = sum(-(-_kept(run.text.encode(), kept_bytes) // longest_token) for run in runs)
    yield by_bytes
    least = 0
    for run in runs:
        if run.control:
            least += 1
            continue
        is_cut = len(run.text) > PIECE_CHARACTERS
        margin = 2 * longest_token + 2 if is_cut else 0
        for piece in pieces(run.text):
            least += max(0, count(piece) - margin)
            yield max(least, by_bytes)


def single_bytes(vocabulary: Iterable[bytes]) -> bytes:
    """Bytes that have a token of their own, sorted: a byte-level tokeniser never loses them."""
    return b"".join(sorted({piece for piece in vocabulary if len(piece) == 1}))


def _kept(text: bytes, kept_bytes: bytes) -> int:
    return len(text) - len(text.translate(None, kept_bytes))


def pieces(text: str) -> Iterator[str]:
    """A text cut before ends of lines or spaces where there are any; joined it is the text again.

    None is longer than `PIECE_CHARACTERS`.
    """
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        middle = start + PIECE_CHARACTERS // 2
        found = text.rfind("\n", middle, end)
        if found < 0:
            found = text.rfind(" ", middle, end)
        cut = found if found >= 0 else end
        yield text[start:cut]
        start = cut
    yield text[start:]


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
