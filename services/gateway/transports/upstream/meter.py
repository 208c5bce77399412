"""How many tokens an answer has, as far as another server lets it be known, and where it is cut."""

from __future__ import annotations

from typing import Final

from cortex.v1 import generation_pb2 as generation

Event = generation.GenerateResponse

# English has four bytes a token, code three, and a Chinese character of three bytes is about one.
_BYTES_PER_TOKEN: Final = 3
# More than the mean token of any text has: of so many bytes there is a token more for sure.
_MOST_BYTES_PER_TOKEN: Final = 16
_DELTAS: Final = frozenset({"text", "reasoning", "tool_call"})


class AnswerMeter:
    """Counts the deltas of one answer, and ends it at the most tokens that it may have.

    What is known of its tokens, the best first:

    1. what the server tells while it answers, where it does;
    2. its pieces, which are tokens with nearly all servers. Some cut the text smaller: a piece of
       less than three bytes is taken for a part of a token. Some send many tokens as one: 16
       bytes are a token at least.

    Args:
        most: tokens of the answer; None: no bound.

    Attributes:
        pieces: so many tokens or pieces have come.
        is_full: something was cut off.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._size = 0
        self._told = 0
        self._whole_size = 0
        self._passed = 0
        self.pieces = 0
        self.is_full = False

    @property
    def tokens(self) -> int:
        """Of the answer so far; never more than are allowed."""
        made = max(self.pieces, self._size // _MOST_BYTES_PER_TOKEN)
        if self._whole_size:  # the answer came as one piece
            made = max(made, -(-self._size // _BYTES_PER_TOKEN))
        return made if self._most is None else min(made, self._most)

    def note_told(self, tokens: int) -> None:
        """Takes in how many tokens the server says that the answer has by now."""
        self._told = max(self._told, tokens)

    def note_whole(self, size: int) -> None:
        """The answer comes as one piece, with so many bytes in all its deltas."""
        self._whole_size = size

    def within(self, event: Event) -> Event | None:
        """An event, as much of it as may be passed on; None: nothing."""
        kind = event.WhichOneof("event") or ""
        if kind not in _DELTAS:
            return event
        self._size += _size(event, kind)
        self.pieces += _pieces(event, kind)
        most, after = self._most, self._least()
        if most is None or after <= most:
            self._passed = after
            return event
        self.is_full = True
        return _shortened(event, kind, (most - self._passed) / (after - self._passed))

    def _least(self) -> int:
        """Tokens that have come for sure, or as exactly as the server says."""
        if self._whole_size:
            if self._told:
                return -(-self._told * self._size // self._whole_size)
            return self._size // _MOST_BYTES_PER_TOKEN
        likely = min(self.pieces, -(-self._size // _BYTES_PER_TOKEN))
        return max(self._told, likely, self._size // _MOST_BYTES_PER_TOKEN)


def size_of(event: Event) -> int:
    """Bytes of the text of a delta; 0 of other events."""
    return _size(event, event.WhichOneof("event") or "")


def _size(event: Event, kind: str) -> int:
    if kind == "tool_call":
        call = event.tool_call
        return len(call.name.encode()) + len(call.arguments_json.encode())
    if kind == "text":
        return len(event.text.text.encode())
    return len(event.reasoning.text.encode()) if kind == "reasoning" else 0


def _pieces(event: Event, kind: str) -> int:
    if kind == "text":
        return len(event.text.logprobs) or 1
    # one that ends a call is none
    return len(event.tool_call.token_ids) if kind == "tool_call" else 1


def _shortened(event: Event, kind: str, share: float) -> Event | None:
    """The beginning of a delta; None of a single token, and of what cannot be cut."""
    if kind == "reasoning":
        text = event.reasoning.text[: int(len(event.reasoning.text) * share)]
        delta = generation.ReasoningDelta(text=text, token_ids=(0,))
        return Event(reasoning=delta) if text else None
    if kind == "text" and event.text.logprobs:
        kept = event.text.logprobs[: int(len(event.text.logprobs) * share)]
        if kept:
            text = b"".join(one.text for one in kept).decode(errors="ignore")
            ids = event.text.token_ids[: len(kept)]
            return Event(text=generation.TextDelta(text=text, token_ids=ids, logprobs=kept))
        return None
    text = event.text.text[: int(len(event.text.text) * share)] if kind == "text" else ""
    return Event(text=generation.TextDelta(text=text)) if text else None
