"""How long devices worked for a task or a principal, as engine and worker tell it.

Nanoseconds of the worker's main thread, from the beginning of a step, a load, an unload or a slice
of texts to its end, for one device; the daemon multiplies them by the devices that work together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.neuron.engine_api.task import Value


class TaskTime(NamedTuple):
    """One task's share of the steps since the last report: reading its prompt, and generating."""

    task_id: int
    principal: str
    prefill_ns: int
    decode_ns: int


class StepTimes(NamedTuple):
    """How long the steps of one model took since the last report.

    Attributes:
        tasks: each task's part.
        busy_ns: all steps in which something was computed.
    """

    tasks: Sequence[TaskTime]
    busy_ns: int


class Charge(Value, frozen=True, array_like=True):
    """Device time that one principal is charged for, in nanoseconds.

    Attributes:
        principal: whose request caused the work; empty for callers without a name.
        model: the model's own name.
        task_id: of a generation; 0 for all else.
        prefill_ns: prompts read, and texts embedded.
        decode_ns: answers made.
        load_ns: of loads, those that failed too.
        unload_ns: of unloads: caches saved, memory freed.
    """

    principal: str
    model: str
    task_id: int = 0
    prefill_ns: int = 0
    decode_ns: int = 0
    load_ns: int = 0
    unload_ns: int = 0
