"""Turns the bytes of tokens into text without ever splitting a character."""

from __future__ import annotations

import codecs


class Detokeniser:
    """Decodes UTF-8 piece by piece.

    Holds back the bytes of an incomplete character until it is complete or can no longer become one
    (then it is U+FFFD). Any division of the same bytes into pieces gives the same text.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """The characters that this piece completes; may be empty."""
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """What is held back, as it is: an incomplete character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)
