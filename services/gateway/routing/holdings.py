"""What instances hold in their caches and how fast they are, as their neurons report it."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.routing.candidates import Replicas, Speeds
from services.gateway.routing.prefix import DIGEST_BYTES, Trail

MOST_DIGESTS: Final = 2_048
"""Of one instance: what a neuron tells beyond that is not kept."""
_MOST_SECONDS: Final = 3_600.0
"""What a neuron measures beyond it, or as no number, is not taken in: by a cost that is no number
none could be chosen."""
_MOST_LEARNED: Final = 4_096
"""Principals and models; what was used longest ago goes first."""
_LEARNED_SHARE: Final = 0.1
"""Weight of the newest answer in what is learned of a model."""
_GUESSED_TOKENS_PER_BYTE: Final = 0.25


class HeldPrefix(NamedTuple):
    """A beginning of a prompt in an instance's cache.

    Attributes:
        tokens: how many it has.
        restore_seconds: what it takes to bring it back from where it was saved; 0: it is in place.
    """

    tokens: int
    restore_seconds: float = 0.0


class Speed(NamedTuple):
    """What an instance has measured of itself, in seconds.

    Attributes:
        per_token: to read one token of a prompt.
        per_request: that one request runs, divided by the number of places.
    """

    per_token: float = 1 / 1_000
    per_request: float = 1.0


Holders: TypeAlias = dict[str, HeldPrefix]
"""The instances that hold one beginning."""
_USUAL: Final = Speed()
_NOBODY: Final[Holders] = {}


class LearnedRatios:
    """Averages over the answers to one principal's prompts of one model.

    Attributes:
        tokens_per_byte: of its prompts.
        reused: share of the tokens foretold to be in the cache that were there. Templates that
            write old turns anew make it small.
    """

    __slots__ = ("reused", "tokens_per_byte")

    def __init__(self) -> None:
        self.tokens_per_byte = _GUESSED_TOKENS_PER_BYTE
        self.reused = 1.0


UNTAUGHT: Final = LearnedRatios()
"""Before the first answer."""


def _ignore(_digest: bytes, _instance_id: str) -> None:
    """Nobody follows what is dropped."""


class Holdings:
    """Which beginnings of prompts (by digest) the instances hold, kept up to date by `WatchCache`.

    Args:
        on_dropped: called with a digest and the instance that holds it no longer.

    Attributes:
        told: who holds which beginning, by its digest.
        learned: what answers have taught, by who asks which model (`Trail.whose`); before the first
            it is `UNTAUGHT`.
    """

    __slots__ = ("_of_instance", "_on_dropped", "_speeds", "_state", "learned", "told")

    def __init__(self, on_dropped: Callable[[bytes, str], None] | None = None) -> None:
        self._on_dropped = on_dropped or _ignore
        # Plain attributes, for they are read by every choice.
        self.told: dict[bytes, Holders] = {}
        self.learned: dict[str, LearnedRatios] = {}
        self._speeds: dict[str, Speed] = {}
        self._state = object()
        self._of_instance: dict[str, set[bytes]] = {}

    def __len__(self) -> int:
        """How many digests are known, those of several instances counted for each."""
        return sum(map(len, self._of_instance.values()))

    def speeds_of(self, replicas: Replicas) -> Speeds:
        """The speeds that instances reported; a usual one for those that reported none."""
        known = replicas.speeds
        if known is None or known.state is not self._state:
            told = [self._speeds.get(name, _USUAL) for name in replicas.names]
            per_token = array("d", [one.per_token for one in told])
            per_request = array("d", [one.per_request for one in told])
            known = replicas.speeds = Speeds(
                self._state, per_token, per_request, min(per_token), min(per_request)
            )
        return known

    def foretold(self, trail: Trail, instance_id: str) -> int:
        """How many tokens of a prompt an instance has cached, going by its neuron's reports."""
        for digest in (*reversed(trail.turns), trail.head):
            held = self.told.get(digest, _NOBODY).get(instance_id)
            if held is not None:
                return held.tokens
        return 0

    def learn(self, whose: str, *, size_bytes: int, tokens: int, foretold: int, found: int) -> None:
        """Learns from an answer: tokens per byte, and how much of what was expected was cached.

        Args:
            whose: who asks which model; nobody else's choices change by it.
            size_bytes: of the prompt.
            tokens: of the prompt.
            foretold: how many of them were to be in the cache; fewer than all.
            found: how many were.
        """
        learned = self.learned.pop(whose, None) or LearnedRatios()
        self.learned[whose] = learned
        if len(self.learned) > _MOST_LEARNED:
            del self.learned[next(iter(self.learned))]
        if size_bytes and tokens:
            ratio = tokens / size_bytes
            learned.tokens_per_byte += (ratio - learned.tokens_per_byte) * _LEARNED_SHARE
        if foretold:
            share = min(1.0, found / foretold)
            learned.reused += (share - learned.reused) * _LEARNED_SHARE

    def apply(self, change: neuron.CacheChange) -> None:
        """Applies one change that a neuron reports of an instance's cache."""
        name = change.instance_id
        if change.whole:
            self.forget(name)
        own = self._of_instance.setdefault(name, set())
        for digest in change.dropped:
            if digest in own:
                own.discard(digest)
                self._drop(digest, name)
                self._on_dropped(digest, name)
        for held in change.held:
            digest = held.digest
            if len(digest) != DIGEST_BYTES or (len(own) >= MOST_DIGESTS and digest not in own):
                continue
            if not 0 <= held.restore_seconds <= _MOST_SECONDS:
                continue
            own.add(digest)
            holders = self.told.setdefault(digest, {})
            made = HeldPrefix(held.tokens, held.restore_seconds)
            another = next(iter(holders.values()), made)
            # Equal ones are one object: a choice that reads them all has less to fetch.
            holders[name] = another if another == made else made
        told = Speed(change.seconds_per_token, change.seconds_per_request)
        if all(0 < seconds <= _MOST_SECONDS for seconds in told):
            self._speeds[name] = told
            self._state = object()
        if not own and name not in self._speeds:
            del self._of_instance[name]  # it has gone, as far as its neuron says

    def knows(self, instance_id: str) -> bool:
        """Whether anything is kept of an instance."""
        return instance_id in self._of_instance

    def forget(self, instance_id: str) -> None:
        """Drops all that is known of an instance's cache."""
        for digest in self._of_instance.pop(instance_id, ()):
            self._drop(digest, instance_id)
        if self._speeds.pop(instance_id, None) is not None:
            self._state = object()

    def _drop(self, digest: bytes, name: str) -> None:
        holders = self.told.get(digest)
        if holders is not None:
            holders.pop(name, None)
            if not holders:
                del self.told[digest]
