"""The instances of a model as a choice reads them, and how busy each of them is."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
from array import array
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from services.backplane.errors import context_too_long

_MASK: Final = (1 << 64) - 1
MOST_HOME_SLACK: Final = 4
"""Half of its places, at least one and at most so many, an instance may be busier than others."""


class Availability(enum.Enum):
    """Whether requests may be sent to an instance, as far as the fleet knows."""

    SERVING = "serving"
    RECOVERING = "recovering"
    """Its worker died and restarts by itself: waited for, no second instance is loaded."""
    UNUSABLE = "unusable"
    """Loading, draining, failed, squeezed, made of an outdated entry, or on a lost neuron."""


@dataclasses.dataclass(frozen=True, slots=True)
class InstanceCandidate:
    """One instance of the wanted model.

    Attributes:
        instance_id: unique in the fleet.
        model: the model's own name, never an alias.
        neuron: name of the neuron that runs it.
        address: where that neuron's gRPC server listens.
        availability: whether it may be sent requests.
        foreign_requests: requests of other gateways there, running and queued, as of the last
            report.
        report: incarnation of the neuron and number of its last report; equal values: no news.
        max_context_tokens: most tokens of prompt and answer together; 0: not known.
        longest_token_bytes: a prompt has at most so many bytes for each token; 0: not known.
        places: most requests that it runs side by side; 0: not known.
        resumes: its neuron can go on behind tokens that another one has made.
    """

    instance_id: str
    model: str
    neuron: str
    address: str
    availability: Availability
    foreign_requests: int = 0
    report: tuple[str, int] = ("", 0)
    max_context_tokens: int = 0
    longest_token_bytes: int = 0
    places: int = 0
    resumes: bool = False

    def refuse_endless(self, characters: int, most_tokens: int) -> None:
        """Refuses a prompt that has more than `most_tokens` for certain, without sending it.

        Raises:
            FleetError: CONTEXT_TOO_LONG.
        """
        context, longest = self.max_context_tokens, self.longest_token_bytes
        if context and longest and characters > most_tokens * longest:
            least = characters // longest
            raise context_too_long(prompt_tokens=least, max_tokens=context, is_minimum=True)


class Speeds(NamedTuple):
    """Reading speed and request time of a model's serving instances, in seconds.

    Attributes:
        state: of what they had told then.
        per_token: to read one token of a prompt.
        per_request: for which one request keeps others from its place.
        least_per_token: of the fastest; least_per_request: likewise.
    """

    state: object
    per_token: array[float]
    per_request: array[float]
    least_per_token: float
    least_per_request: float


class Replicas:
    """A model's instances, prepared for choosing among them; made again when the fleet changes.

    Args:
        model: its own name.
        candidates: its instances, in any order.
        running: this gateway's own running requests per instance id.

    Attributes:
        model: its own name.
        candidates: all of its instances.
        serving: those that are SERVING; what follows has a place for each of them.
        names: their ids.
        work: how many requests each has: those that other gateways had there at its neuron's last
            report, and this gateway's own that run now (see `Outstanding.follow`).
        room: how many requests each runs side by side.
        slack: how many requests more than others each may have.
        places: where a name stands in `names`.
        speeds: how fast each is, as far as it was asked before (see `Holdings.speeds_of`).
        is_recovering: an instance restarts by itself.
    """

    __slots__ = (
        "candidates",
        "is_recovering",
        "model",
        "names",
        "places",
        "room",
        "serving",
        "slack",
        "speeds",
        "work",
    )

    def __init__(
        self, model: str, candidates: Sequence[InstanceCandidate], running: Mapping[str, int]
    ) -> None:
        serving = [one for one in candidates if one.availability is Availability.SERVING]
        self.model = model
        self.candidates = tuple(candidates)
        self.serving = serving
        self.names = [one.instance_id for one in serving]
        self.work = [one.foreign_requests + running.get(one.instance_id, 0) for one in serving]
        self.room = [one.places for one in serving]
        self.slack = [min(max(one.places // 2, 1), MOST_HOME_SLACK) for one in serving]
        self.places = {name: place for place, name in enumerate(self.names)}
        self.speeds: Speeds | None = None
        self.is_recovering = any(one.availability is Availability.RECOVERING for one in candidates)

    def without(self, excluded: Collection[str], running: Mapping[str, int]) -> Replicas:
        """The same without the serving instances that are excluded."""
        left = [
            one
            for one in self.candidates
            if one.availability is not Availability.SERVING or one.instance_id not in excluded
        ]
        return Replicas(self.model, left, running)

    def two_for(self, beginning: bytes) -> Sequence[int]:
        """The two instances that rendezvous hashing gives a digest; the same in every gateway."""
        number = int.from_bytes(beginning[:8], "little")
        affinities = [_affinity(number, name) for name in self.names]
        return sorted(range(len(affinities)), key=affinities.__getitem__)[-2:]


class Outstanding(dict[str, int]):
    """This gateway's running requests by instance id; an instance without any is absent."""

    def __init__(self) -> None:
        super().__init__()
        self._followers: dict[str, tuple[list[int], int]] = {}

    def follow(self, replicas: Replicas) -> None:
        """Keeps the numbers in `replicas.work` up to date, until `unfollow`."""
        for name, place in replicas.places.items():
            self._followers[name] = replicas.work, place

    def unfollow(self) -> None:
        """Stops keeping the numbers of any replicas up to date."""
        self._followers.clear()

    def take(self, instance_id: str) -> None:
        """Counts a request that is sent to an instance, until it ends."""
        self._add(instance_id, 1)

    def give_back(self, instance_id: str) -> None:
        """Counts the end of a request that `take` has counted."""
        self._add(instance_id, -1)

    def _add(self, instance_id: str, more: int) -> None:
        running = self.get(instance_id, 0) + more
        if running:
            self[instance_id] = running
        else:
            del self[instance_id]
        follower = self._followers.get(instance_id)
        if follower is not None:
            work, place = follower
            work[place] += more


def _affinity(beginning: int, instance_id: str) -> int:
    """A number for a conversation on an instance."""
    mixed = ((beginning ^ _seed(instance_id)) * 0x9E3779B97F4A7C15) & _MASK
    return mixed ^ (mixed >> 32)


@functools.lru_cache(maxsize=4096)
def _seed(instance_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(instance_id.encode(), digest_size=8).digest(), "little")
