"""Chooses the instance that serves a request. Pure: values in, a value out.

The choice is advisory: the neuron may refuse, and dispatch asks again with that one excluded.
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
    """What a loaded instance is good for, as far as the fleet knows."""

    SERVING = "serving"
    RECOVERING = "recovering"
    """Its worker died and comes back by itself: worth waiting for, never worth a second instance."""
    UNUSABLE = "unusable"
    """Loading, draining, failed, squeezed, made of an outdated entry, or on a lost neuron."""


@dataclasses.dataclass(frozen=True, slots=True)
class InstanceCandidate:
    """One instance of the wanted model.

    Attributes:
        foreign_requests: work that other gateways had there at the last report.
        report: grows with every report of its neuron; the same number means no news.
        max_context_tokens: longest prompt that it takes; 0: not known.
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
    """No candidate may serve now.

    Attributes:
        recovering: some instance is coming back by itself.
    """

    recovering: bool


def choose(
    candidates: Sequence[InstanceCandidate],
    outstanding: Mapping[str, int],
    *,
    excluded: Collection[str] = (),
    prefix: Callable[[], bytes] = bytes,
) -> InstanceCandidate | NoneServing:
    """The candidate with the least outstanding work.

    Equal ones are told apart by the prompt's prefix, so that a conversation comes back to the
    cache that knows it, and last by name.

    Args:
        candidates: every instance of the model, in any order.
        outstanding: this gateway's own running requests per instance id.
        excluded: instance ids that have failed this request.
        prefix: the beginning of the prompt; only called to break a tie.
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
    """A digest of what every turn of one conversation begins with.

    System turns and the first user turn: later turns change, these stay.
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
