"""Chooses the instance that serves a request. Pure: values in, a value out.

The fleet may have changed since the view was made, so that a neuron may refuse what was chosen
here; `dispatch` then chooses again without that instance.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation

_FIRST_CHARACTERS: Final = 2048


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
    """

    instance_id: str
    model: str
    neuron: str
    address: str
    availability: Availability
    foreign_requests: int = 0
    report: tuple[str, int] = ("", 0)
    max_context_tokens: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class NoneServing:
    """No instance can serve now.

    Attributes:
        recovering: one of them restarts by itself, so that waiting is better than loading another.
    """

    recovering: bool


def choose(
    candidates: Sequence[InstanceCandidate],
    outstanding: Mapping[str, int],
    *,
    excluded: Collection[str] = (),
    prefix: Callable[[], bytes] = bytes,
) -> InstanceCandidate | NoneServing:
    """Decides which instance serves a request.

    1. Only instances that are SERVING count, and of those only the ones not excluded.
    2. The one with the fewest requests wins: those that other gateways had there at its neuron's
       last report, plus this gateway's own that are running now.
    3. Of several with equally few, the beginning of the prompt decides, by rendezvous hashing: the
       turns of one conversation go to the same instance, which has their prefix in its cache.
    4. Where nothing is known of the prompt, the greatest instance id wins.
    5. Where no instance is left, the answer says whether one is RECOVERING.

    Args:
        candidates: every instance of the model, in any order.
        outstanding: this gateway's own running requests per instance id.
        excluded: ids of instances that have failed this request (see `RetryState.excluded`).
        prefix: makes a digest of the prompt's beginning; called only to break a tie.

    Returns:
        The instance, or that there is none.
    """
    best: list[InstanceCandidate] = []
    least = 0
    recovering = False
    for candidate in candidates:
        if candidate.availability is not Availability.SERVING or candidate.instance_id in excluded:
            recovering = recovering or candidate.availability is Availability.RECOVERING
            continue
        work = candidate.foreign_requests + outstanding.get(candidate.instance_id, 0)
        if not best or work < least:
            best, least = [candidate], work
        elif work == least:
            best.append(candidate)
    if not best:
        return NoneServing(recovering)
    if len(best) == 1:
        return best[0]
    beginning = prefix()
    return max(best, key=lambda candidate: (_affinity(beginning, candidate), candidate.instance_id))


def _affinity(prefix: bytes, candidate: InstanceCandidate) -> bytes:
    """Rendezvous hashing: when an instance comes or goes, only its own conversations move."""
    if not prefix:
        return b""
    return hashlib.blake2b(prefix + candidate.instance_id.encode(), digest_size=8).digest()


def prompt_prefix(request: generation.GenerateRequest) -> bytes:
    """A digest of what all requests of one conversation begin with: 16 bytes.

    It covers everything up to the first user turn, which later turns do not change.
    """
    kind = request.WhichOneof("prompt")
    if kind == "chat":
        beginning = _chat_beginning(request.chat)
    elif kind == "text":
        beginning = request.text[:_FIRST_CHARACTERS]
    else:
        beginning = repr(request.token_ids.ids[:256])
    return hashlib.blake2b(beginning.encode("utf-8", "replace"), digest_size=16).digest()


def _chat_beginning(chat: conversation.Chat) -> str:
    pieces: list[str] = []
    for message in chat.messages:
        pieces += [part.text for part in message.parts]
        if message.role == conversation.ROLE_USER:
            break
    return "\x1e".join(pieces)[: _FIRST_CHARACTERS * 4]
