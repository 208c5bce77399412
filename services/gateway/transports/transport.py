"""What every way of running a generation on a neuron owes its callers, and they to it."""

from __future__ import annotations

from typing import Protocol

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError


class Sink(Protocol):
    """Takes the events of one generation, called back on the event loop.

    Many sinks hang on one connection, so none may raise or block. After `finished` or `failed`
    nothing more is called. What the neuron's messages carried is followed by one `flush`, or by
    `finished`, so that several deltas can leave as one.
    """

    def text(self, text: str, tokens: int) -> None:
        """Plain text without logprobs, and how many tokens stand behind it."""
        ...

    def event(self, event: generation.GenerateResponse) -> None:
        """Any event but `finished`."""
        ...

    def flush(self) -> None:
        """No further message of the neuron is there now."""
        ...

    def finished(self, finished: generation.GenerationFinished) -> None:
        """The generation ended well."""
        ...

    def failed(self, error: FleetError) -> None:
        """The generation ended badly, or its neuron was lost."""
        ...


class NeuronSequence(Protocol):
    """One running generation."""

    def cancel(self) -> None:
        """Stops it on the neuron; its sink hears nothing more. Idempotent, also after the end."""
        ...

    def credit(self, tokens: int) -> None:
        """Lets the neuron send so many tokens more than it may already."""
        ...


class NeuronTransport(Protocol):
    """Runs generations on one neuron."""

    def start(self, request: generation.GenerateRequest, sink: Sink) -> NeuronSequence:
        """Begins a generation; never waits. All that goes wrong reaches the sink.

        The request must not be changed before the sink has heard of its end.
        """
        ...

    async def close(self) -> None:
        """Ends everything that runs with NEURON_LOST."""
        ...


def token_count(event: generation.GenerateResponse) -> int:
    """Tokens that an event carries: what it takes from a sequence's credit."""
    kind = event.WhichOneof("event")
    if kind == "text":
        return len(event.text.token_ids)
    if kind == "reasoning":
        return len(event.reasoning.token_ids)
    if kind == "tool_call":
        return len(event.tool_call.token_ids)
    return 0
