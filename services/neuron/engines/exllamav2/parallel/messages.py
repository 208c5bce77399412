"""What rank 0 tells the others to do, in order; and what they answer. Length-prefixed msgpack.

Only orders that say so are answered. What is not, a forward pass, is waited for in its all-reduces.
"""

from __future__ import annotations

from typing import Final

import msgspec

from services.neuron.engine_api.task import Value
from services.neuron.engines.exllamav2.model.sizing import Shape


class RankHello(Value, frozen=True, tag="hello"):
    """The first answer, without an order: the library is there, or why it is not."""

    error: str = ""


class Join(Value, frozen=True, tag="join"):
    """Meet the others over a file; answered when all have met."""

    store: str


class Measure(Value, frozen=True, tag="measure"):
    """How much of the device is free? Answered with bytes."""


class Begin(Value, frozen=True, tag="begin"):
    """Begin to load a model of a folder; answered."""

    instance_id: str
    path: str
    shape: Shape


class Advance(Value, frozen=True, tag="advance"):
    """Load the next module; answered."""

    instance_id: str


class MeasureModel(Value, frozen=True, tag="held"):
    """How much of the device does the model take? Answered with bytes."""

    instance_id: str


class Drop(Value, frozen=True, tag="drop"):
    """Free a model, loaded or half loaded or unknown; answered."""

    instance_id: str


class RunForward(Value, frozen=True, tag="forward"):
    """Run a forward pass.

    Attributes:
        rows, length: of the input.
        token_ids: int64, all rows.
        pages: int32, of all rows; None runs without a cache.
        positions: int32, tokens of each row that are in the cache.
        longest: of the sequences.
        is_prefill: stop behind the last layer that fills the cache.
        is_last_only: the head reads the last token alone.
    """

    instance_id: str
    rows: int
    length: int
    token_ids: bytes
    pages: bytes | None = None
    positions: bytes = b""
    longest: int = 0
    is_prefill: bool = False
    is_last_only: bool = False


class RunHead(Value, frozen=True, tag="head"):
    """Run the head alone, on states that rank 0 broadcasts."""

    instance_id: str
    shape: tuple[int, ...]


class CopyStates(Value, frozen=True, tag="copy_states"):
    """Copy tokens within the cache."""

    instance_id: str
    source: int
    target: int
    tokens: int


class RankAnswer(Value, frozen=True, tag="answer"):
    """What became of an order.

    Attributes:
        number: what was asked for.
        reason, message: of a LoadFailed; empty where all is well.
    """

    number: int = 0
    reason: str = ""
    message: str = ""


Order = Join | Measure | Begin | Advance | MeasureModel | Drop | RunForward | RunHead | CopyStates
Reply = RankHello | RankAnswer

ORDERS: Final = msgspec.msgpack.Decoder(Order)
REPLIES: Final = msgspec.msgpack.Decoder(Reply)
