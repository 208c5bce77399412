"""The interface of all ways to run a generation on a neuron, and of the sinks that they feed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError


class Sink(Protocol):
    """Takes the events of one generation, called back on the event loop.

    Many sinks share one connection, so none may raise or block. `finished` or `failed` is the last
    call. After the events of one or more messages comes one `flush`, or `finished`, so that a sink
    can pass several deltas on as one.
    """

    __slots__ = ()

    def text(self, text: str, tokens: int, token_ids: Sequence[int] = ()) -> None:
        """Plain text without log probabilities.

        Args:
            text: the text.
            tokens: how many tokens it is made of.
            token_ids: these tokens; empty where the neuron does not tell them, or where they may
                come apart from what was told with them.
        """
        ...

    def event(self, event: generation.GenerateResponse) -> None:
        """Any other event, but for `finished`."""
        ...

    def flush(self) -> None:
        """All that has arrived was passed on: the sink may now write what it has collected."""
        ...

    def finished(self, finished: generation.GenerationFinished) -> None:
        """The generation is complete."""
        ...

    def failed(self, error: FleetError) -> None:
        """The generation failed, or its neuron was lost."""
        ...


class NeuronSequence(Protocol):
    """One generation that runs on a neuron, as the gateway steers it."""

    __slots__ = ()

    def cancel(self) -> None:
        """Stops it on the neuron; its sink is not called again. May be called at any time."""
        ...

    def credit(self, tokens: int) -> None:
        """Lets the neuron send this many more tokens."""
        ...


class NeuronTransport(Protocol):
    """Runs generations on one neuron."""

    __slots__ = ()

    def start(self, request: generation.GenerateRequest, sink: Sink) -> NeuronSequence:
        """Begins a generation without waiting. Errors reach the sink, none is raised.

        The request must not be changed before the sink was told of its end.
        """
        ...

    async def close(self) -> None:
        """Fails everything that runs with NEURON_LOST."""
        ...


def token_ids(event: generation.GenerateResponse) -> Sequence[int]:
    """The tokens that an event carries, none for what is no delta."""
    kind = event.WhichOneof("event")
    if kind == "text":
        return event.text.token_ids
    if kind == "reasoning":
        return event.reasoning.token_ids
    if kind == "tool_call":
        return event.tool_call.token_ids
    return ()


def token_count(event: generation.GenerateResponse) -> int:
    """How many tokens an event carries, which is how much of the credit it uses up."""
    return len(token_ids(event))
