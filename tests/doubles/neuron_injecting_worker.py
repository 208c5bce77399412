"""The worker itself, whose library fails at its next step when a signal says so.

`EXCEPTION` makes the library raise behind a step, which loses what the step made. `DEVICE_ERROR` is
an error of the device: on a GPU a real assertion in a kernel, elsewhere the words of one.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType
from typing import Any, Final

from services.neuron.worker.__main__ import main

EXCEPTION: Final = signal.SIGUSR2
DEVICE_ERROR: Final = signal.SIGRTMIN

_armed: list[int] = []


def arm(number: int, _: FrameType | None) -> None:
    """The next step of the library fails."""
    _armed.append(number)


def fail_if_armed() -> None:
    """Called behind every step of the library."""
    if not _armed:
        return
    if _armed.pop() == EXCEPTION:
        raise ValueError("injected by a test")
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.version.cuda and torch.cuda.is_available():
        # It is seen at the next synchronisation, as such errors are.
        torch.zeros(4, device="cuda")[torch.tensor([1 << 30], device="cuda")]
        return
    raise RuntimeError("CUDA error: device-side assert triggered (injected by a test)")


def wire_exllamav2() -> None:
    """Every generator that the loop makes."""
    from services.neuron.engines.exllamav2.model.generators import GeneratorParts

    make = GeneratorParts.make_generator

    def make_generator(self: GeneratorParts) -> Any:
        made = make(self)
        iterate = made.iterate

        def iterate_and_fail() -> Any:
            results = iterate()
            fail_if_armed()
            return results

        made.iterate = iterate_and_fail
        return made

    GeneratorParts.make_generator = make_generator  # type: ignore[method-assign]


def wire_llamacpp() -> None:
    """Every forward pass."""
    from services.neuron.engines.llamacpp.batch.context import Context

    decode = Context.decode

    def decode_and_fail(self: Context, batch: Any) -> bool:
        is_complete = decode(self, batch)
        fail_if_armed()
        return is_complete

    Context.decode = decode_and_fail  # type: ignore[method-assign]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    engine = parser.parse_known_args()[0].engine
    {"exllamav2": wire_exllamav2, "llamacpp": wire_llamacpp}[engine]()
    for number in (EXCEPTION, DEVICE_ERROR):
        signal.signal(number, arm)
    code = main()
    sys.stderr.flush()
    os._exit(code)
