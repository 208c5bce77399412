"""What an engine tells of the beginnings of prompts that its cache holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from services.neuron.engine_api.task import Value


class HeldPrefix(Value, frozen=True, array_like=True):
    """A beginning of a prompt that the cache holds, so that it need not be computed again.

    Attributes:
        digest: the name that the caller gave it, see `PromptMarks`.
        tokens: how long it is.
        restore_seconds: what it takes to bring it back; 0: it is in place.
    """

    digest: bytes
    tokens: int
    restore_seconds: float = 0.0


class CacheChanges(Value, frozen=True):
    """What has changed in a model's cache since the last report.

    Attributes:
        held: new, or of another length.
        dropped: digests of what is held no longer.
        seconds_per_token: measured, to read one token of a prompt; 0: not known.
        seconds_per_request: measured, that a request runs, divided by the number of places: so
            often a place comes free; 0: not known.
    """

    held: tuple[HeldPrefix, ...] = ()
    dropped: tuple[bytes, ...] = ()
    seconds_per_token: float = 0.0
    seconds_per_request: float = 0.0


class Comparison(Value, frozen=True):
    """How much of a prompt the cache holds for one principal, and the text where they differ.

    Attributes:
        cached_tokens: how many first tokens are in place.
        saved_tokens: how many are in a saved sequence.
        alike: the end of what is alike, as text.
        asked: what the prompt has behind it.
        held: what the cache has there. `asked` and `held` are empty where the prompt goes on from
            all that is held.
        seconds_per_token: measured, to read one; 0: not known.
    """

    cached_tokens: int = 0
    saved_tokens: int = 0
    alike: str = ""
    asked: str = ""
    held: str = ""
    seconds_per_token: float = 0.0


@runtime_checkable
class ReportsCache(Protocol):
    """A `LoadedModel` that reports what its cache holds."""

    def cache_changes(self, now: float) -> CacheChanges | None:
        """Changes since the last call, `now` in monotonic seconds; None where there are none.

        Costs next to nothing to ask: it looks only now and then.
        """
        ...

    def compare(self, token_ids: Sequence[int], principal: str) -> Comparison:
        """How much of a prompt the cache holds for this principal, and where the two differ."""
        ...
