"""The worker itself, in which one function raises once, when a signal has armed it.

`FAIL_AT` names it: `services.neuron.worker.loop:EngineLoop._do`. SIGUSR2 arms it, which is
acknowledged on standard error. A name that ends with `!` raises what is no `Exception`, as panics
of libraries that are written in Rust are.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from typing import Any

from services.neuron.worker.__main__ import main

_armed: list[int] = []


class Panic(BaseException):
    """As pyo3 raises them."""


def arm(number: int, _: Any) -> None:
    """The next call fails."""
    _armed.append(number)
    sys.stderr.write("armed\n")
    sys.stderr.flush()


def wire(name: str) -> None:
    """Replaces the function by one that may fail."""
    module, _, path = name.rstrip("!").partition(":")
    owner: Any = importlib.import_module(module)
    *parents, last = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    genuine = getattr(owner, last)

    @functools.wraps(genuine)
    def fail(*args: Any, **kwargs: Any) -> Any:
        if _armed:
            _armed.pop()
            raise Panic("injected") if name.endswith("!") else RuntimeError("injected")
        return genuine(*args, **kwargs)

    setattr(owner, last, fail)


if __name__ == "__main__":
    wire(os.environ["FAIL_AT"])
    signal.signal(signal.SIGUSR2, arm)
    code = main()
    sys.stderr.flush()
    os._exit(code)
