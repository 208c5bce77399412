"""What the cache of one model holds, for gateways that choose among instances by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from services.neuron.engine_api.cache import CacheChanges, Comparison, HeldPrefix
from services.neuron.engines.common.kv_store.hibernation import Hibernation
from services.neuron.engines.common.kv_store.prefix import common_prefix
from services.neuron.engines.common.marks import Mark

MOST_TOLD: Final = 2_048
"""Digests of one model: those in place before those that are saved."""
LOOK_SECONDS: Final = 0.25
_SAVED_SECONDS: Final = 2.0
"""How often the folders of what is saved are looked at."""
_SHOWN_TOKENS: Final = 24


class CachedSequence(Protocol):
    """A sequence that the cache holds, as the reports need it."""

    @property
    def scope(self) -> str:
        """The principal that it belongs to, with what its format depends on."""
        ...

    @property
    def tokens(self) -> list[int]:
        """What it holds, in order."""
        ...

    @property
    def marks(self) -> Sequence[Mark]:
        """Names of its beginnings; some may reach beyond the tokens computed so far."""
        ...


Cached = TypeVar("Cached", bound=CachedSequence)


class CacheReporter(Generic[Cached]):
    """Compares what is held with what was told, now and then.

    A digest is told with as many tokens as are really in the cache of its beginning: where the
    cache cannot be cut there, those of the checkpoint before.

    Args:
        sequences: all that are in the cache.
        reusable: how many of a sequence's first tokens need not be read, where so many are alike.
        hibernation: what is saved of the model.
        seconds_per_request: measured, all places together; None: not yet.
    """

    def __init__(
        self,
        sequences: Callable[[], Iterable[Cached]],
        *,
        reusable: Callable[[Cached, int], int],
        hibernation: Hibernation,
        seconds_per_request: Callable[[], float | None],
    ) -> None:
        self._sequences = sequences
        self._reusable = reusable
        self._hibernation = hibernation
        self._seconds_per_request = seconds_per_request
        self._told: dict[bytes, HeldPrefix] = {}
        self._speeds = (0.0, 0.0)
        self._looks_at = 0.0
        self._looks_at_saved = 0.0
        self._saved: dict[bytes, HeldPrefix] = {}

    def news(self, now: float) -> CacheChanges | None:
        """Changes since the last report; None where there are none, or it is too soon to look."""
        if now < self._looks_at:
            return None
        self._looks_at = now + LOOK_SECONDS
        held = self._held(now)
        told, self._told = self._told, held
        speeds = self._measured()
        if held == told and speeds == self._speeds:
            return None
        self._speeds = speeds
        return CacheChanges(
            tuple(one for digest, one in held.items() if told.get(digest) != one),
            tuple(told.keys() - held.keys()),
            *speeds,
        )

    def compare(
        self, prompt: Sequence[int], principal: str, *, pieces: Sequence[bytes]
    ) -> Comparison:
        """How much of a prompt is held for a principal; `pieces` are the bytes of every token."""
        most = max(0, len(prompt) - 1)
        own = [one for one in self._sequences() if one.scope == principal and one.tokens]
        held: Sequence[int] = ()
        cached = alike = 0
        for one in own:
            common = common_prefix(one.tokens, prompt)
            cached = max(cached, self._reusable(one, min(common, most)))
            if common >= alike:
                held, alike = one.tokens, common
        entry = self._hibernation.better(prompt, principal, than=cached)
        saved = 0 if entry is None else min(common_prefix(entry.tokens, prompt), most)
        if entry is not None and saved > alike:
            held, alike = entry.tokens.tolist(), saved

        def text(tokens: Sequence[int]) -> str:
            return b"".join(pieces[token] for token in tokens).decode("utf-8", "replace")

        parts = alike < min(len(held), len(prompt))
        return Comparison(
            cached_tokens=cached,
            saved_tokens=saved,
            alike=text(prompt[max(0, alike - _SHOWN_TOKENS) : alike]),
            asked=text(prompt[alike : alike + _SHOWN_TOKENS]) if parts else "",
            held=text(held[alike : alike + _SHOWN_TOKENS]) if parts else "",
            seconds_per_token=self._measured()[0],
        )

    def _held(self, now: float) -> dict[bytes, HeldPrefix]:
        held: dict[bytes, HeldPrefix] = {}
        for sequence in self._sequences():
            for length, digest in sequence.marks:
                if length > len(sequence.tokens):
                    continue  # it is being read
                tokens = self._reusable(sequence, length)
                known = held.get(digest)
                if tokens and (known is None or known.tokens < tokens):
                    held[digest] = HeldPrefix(digest, tokens)
        if now >= self._looks_at_saved:
            self._looks_at_saved = now + _SAVED_SECONDS
            self._saved = {one.digest: one for one in self._hibernation.held()}
        for digest, one in self._saved.items():
            if len(held) >= MOST_TOLD:
                break
            held.setdefault(digest, one)
        return held

    def _measured(self) -> tuple[float, float]:
        """To a tenth or so, so that it is no news each time."""
        per_token = 1 / self._hibernation.tokens_per_second
        return _rough(per_token), _rough(self._seconds_per_request() or 0.0)


def _rough(seconds: float) -> float:
    return float(f"{seconds:.1e}")
