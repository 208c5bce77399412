"""The worker itself, with a bug in one of its parts, by its first argument.

`command` is contained; `step` ends the loop, `writer` and `reader` end threads: the process dies
with its variables at hand.
"""

from __future__ import annotations

import sys
from typing import Any

from services.neuron.worker import link
from services.neuron.worker.__main__ import main
from services.neuron.worker.inbox import Inbox
from services.neuron.worker.loop import EngineLoop
from tests.doubles.planted import crash


def break_step() -> None:
    """A task cannot be stepped."""
    step = EngineLoop._step

    def step_none(self: EngineLoop, instance: Any) -> None:
        if instance.tasks:
            crash(instance)
        step(self, instance)

    EngineLoop._step = step_none  # type: ignore[method-assign]


def break_writer() -> None:
    """From the first step on, no report can be packed."""
    step = EngineLoop._step

    def step_once(self: EngineLoop, instance: Any) -> None:
        if instance.tasks:
            vars(link)["pack"] = crash
        step(self, instance)

    EngineLoop._step = step_once  # type: ignore[method-assign]


def break_reader() -> None:
    """A task is more than the thread that reads can take."""
    put = Inbox.put_command

    def put_none(self: Inbox, command: Any) -> None:
        if type(command).__name__ == "Submit":
            crash(command)
        put(self, command)

    Inbox.put_command = put_none  # type: ignore[method-assign]


if __name__ == "__main__":
    match sys.argv.pop(1):
        case "command":
            EngineLoop._submit = crash  # type: ignore[method-assign]
        case "step":
            break_step()
        case "writer":
            break_writer()
        case "reader":
            break_reader()
    sys.exit(main())
