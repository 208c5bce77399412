"""What daemon and worker say to each other: length-prefixed msgpack over a socket pair.

The daemon sends `Command`s, the worker `Report`s. One `Stepped` frame per engine step carries the
events of all sequences, so that a token costs next to nothing on the way.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from services.neuron.engine_api.cache import CacheChanges, Comparison
from services.neuron.engine_api.device_time import Charge
from services.neuron.engine_api.events import Event
from services.neuron.engine_api.model import LoadPlan, LoadStep, ModelInfo, ModelStats
from services.neuron.engine_api.task import Prompt, Task, Value

HEADER: Final = struct.Struct("<I")
MAX_FRAME_BYTES: Final = 256 << 20


class Load(Value, frozen=True, tag="load"):
    """Load a model. Answered by LoadAdvanced, any number of times, then Loaded or LoadAborted."""

    plan: LoadPlan


class AbandonLoad(Value, frozen=True, tag="abandon_load"):
    """Nobody wants this load any more. Answered by LoadAborted (CANCELLED), unless it had ended."""

    instance_id: str


class Unload(Value, frozen=True, tag="unload"):
    """Free a model. Tasks that still run fail with INSTANCE_GONE. Answered by Unloaded.

    Attributes:
        instance_id: which.
        principal: whose request caused it.
    """

    instance_id: str
    principal: str = ""


class Submit(Value, frozen=True, tag="submit"):
    """Queue a task. Answered by its events."""

    task: Task


class Cancel(Value, frozen=True, tag="cancel"):
    """Forget tasks, at once and without an answer."""

    task_ids: tuple[int, ...]


class Credit(Value, frozen=True, tag="credit"):
    """Let tasks send more: pairs of task id and tokens."""

    grants: tuple[tuple[int, int], ...]


class CountTokens(Value, frozen=True, tag="count_tokens"):
    """Tokenise. Answered by Counted with the same call id.

    Attributes:
        call_id: of the answer.
        instance_id: whose tokens.
        prompt: what is tokenised.
        principal: who asks.
        wants_ids: the tokens themselves, not only how many they are.
    """

    call_id: int
    instance_id: str
    prompt: Prompt
    principal: str = ""
    wants_ids: bool = False


class CompareTokens(Value, frozen=True, tag="compare_tokens"):
    """Asks how much of a prompt the cache holds. Answered by Compared with the same call id."""

    call_id: int
    instance_id: str
    token_ids: tuple[int, ...]
    principal: str


class EmbedTexts(Value, frozen=True, tag="embed_texts"):
    """Embed texts. Answered by Embedded with the same call id."""

    call_id: int
    instance_id: str
    inputs: tuple[Prompt, ...]
    truncate: bool = False
    principal: str = ""


class AbandonCall(Value, frozen=True, tag="abandon_call"):
    """Cancels a call: nobody waits for its answer any more, and none follows."""

    call_id: int


class StopWorker(Value, frozen=True, tag="stop_worker"):
    """End the process now; work in flight is lost."""


Command = (
    Load
    | AbandonLoad
    | Unload
    | Submit
    | Cancel
    | Credit
    | CountTokens
    | EmbedTexts
    | CompareTokens
    | AbandonCall
    | StopWorker
)


class Hello(Value, frozen=True, tag="hello"):
    """First report: the engine is importable and passed its self-check."""

    pid: int
    engine: str
    facts: dict[str, str] = {}


class LoadAdvanced(Value, frozen=True, tag="load_advanced"):
    """A load goes on; `warming` once the weights are in place and one token is being generated."""

    instance_id: str
    step: LoadStep
    warming: bool = False


class Loaded(Value, frozen=True, tag="loaded"):
    """The model is ready: one real token was generated."""

    instance_id: str
    info: ModelInfo
    seconds: float


class LoadAborted(Value, frozen=True, tag="load_aborted"):
    """The load failed or was abandoned; nothing of it is left. `reason` names a Reason."""

    instance_id: str
    reason: str
    message: str


class Unloaded(Value, frozen=True, tag="unloaded"):
    """The model's memory is free.

    Attributes:
        freed_bytes: measured.
        saved_sequences, saved_bytes: of its cache, for when it is loaded again.
    """

    instance_id: str
    freed_bytes: int
    saved_sequences: int = 0
    saved_bytes: int = 0


class Stepped(Value, frozen=True, tag="stepped"):
    """What one engine step did, for all of its sequences, and how busy the model is now."""

    instance_id: str
    events: tuple[Event, ...]
    stats: ModelStats


class Counted(Value, frozen=True, tag="counted"):
    """Answer to CountTokens; `error` is set where it failed (name of a Reason, sentence).

    Attributes:
        call_id: of the question.
        tokens: how many there are.
        token_ids: the tokens, if they were asked for.
        error: why there is no answer.
    """

    call_id: int
    tokens: int = 0
    token_ids: tuple[int, ...] = ()
    error: tuple[str, str] | None = None


class Embedded(Value, frozen=True, tag="embedded"):
    """Answer to EmbedTexts; `error` is set where it failed (name of a Reason, sentence)."""

    call_id: int
    vectors: tuple[tuple[float, ...], ...] = ()
    prompt_tokens: int = 0
    error: tuple[str, str] | None = None


class Compared(Value, frozen=True, tag="compared"):
    """Answer to CompareTokens; `error` is set where it failed (name of a Reason, sentence)."""

    call_id: int
    comparison: Comparison = Comparison()
    error: tuple[str, str] | None = None


class Beat(Value, frozen=True, tag="beat"):
    """The main loop is alive: sent at every loop turn at most every half second, and while idle.

    Attributes:
        busy_with: what it does, in words; empty while idle.
        resident_bytes: of all of its processes.
        rank_pids: its other processes, see `Grouped`.
    """

    busy_with: str
    resident_bytes: int
    rank_pids: tuple[int, ...] = ()


class CacheReport(Value, frozen=True, tag="cache_told"):
    """What the cache of a model holds, as far as it has changed; the first time all of it."""

    instance_id: str
    news: CacheChanges


class Charged(Value, frozen=True, tag="charged"):
    """Device time by principal since the last such frame; sent before what ends that work.

    Attributes:
        charges: by principal, and by task where it was one.
        busy_ns: of the devices in all, as the worker has measured it by itself.
    """

    charges: tuple[Charge, ...]
    busy_ns: int


class Crashed(Value, frozen=True, tag="crashed"):
    """An exception that nobody foresaw ended one command; the loop goes on.

    Attributes:
        place: where it was contained; a constant.
        trace: types and frames of it.
    """

    place: str
    trace: str


Report = (
    Hello
    | LoadAdvanced
    | Loaded
    | LoadAborted
    | Unloaded
    | Stepped
    | Counted
    | Embedded
    | Compared
    | Beat
    | CacheReport
    | Charged
    | Crashed
)

_ENCODER: Final = msgspec.msgpack.Encoder()
COMMANDS: Final = msgspec.msgpack.Decoder(Command)
REPORTS: Final = msgspec.msgpack.Decoder(Report)


def pack(frame: Value) -> bytes:
    """A message between the daemon and a process of its own, with its length before it."""
    body = _ENCODER.encode(frame)
    return HEADER.pack(len(body)) + body
