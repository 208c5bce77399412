"""Entry of the worker process."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import socket
import sys
from typing import Final

from services.backplane.process.parent_death import die_with_parent
from services.backplane.tracebacks import write_unforeseen
from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.engines import EngineUnavailableError, create_engine
from services.neuron.worker.link import DaemonLink
from services.neuron.worker.loop import EngineLoop

EX_UNAVAILABLE: Final = 69  # sysexits.h
EX_POISONED: Final = 70
EX_PROTOCOL: Final = 76


def main() -> int:
    """Runs until the daemon closes the socket or says stop.

    Returns: the exit code: 0 for an orderly end, 69 where the engine cannot run here, 70 where the
        device or the library is poisoned, 76 where the daemon sent nonsense. The last line on
        standard error says why.
    """
    parser = argparse.ArgumentParser(prog="services.neuron.worker")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--fd", required=True, type=int)
    arguments = parser.parse_args()
    die_with_parent(signal.SIGKILL)  # so that no device stays taken
    write_unforeseen()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    # The terminal's Ctrl-C goes to the whole group; only the daemon decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # It has its settings from the daemon: a reload is none of its business.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with socket.socket(fileno=arguments.fd) as daemon:
        try:
            engine = create_engine(arguments.engine)
        except EngineUnavailableError as error:
            sys.stderr.write(f"worker: {error}\n")
            return EX_UNAVAILABLE
        link = DaemonLink(daemon)
        try:
            EngineLoop(engine, link).run()
        except EnginePoisoned as error:
            sys.stderr.write(f"worker: the engine is poisoned: {error}\n")
            return EX_POISONED
    if link.fault is not None:
        sys.stderr.write(f"worker: {link.fault}\n")
        return EX_PROTOCOL
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Not sys.exit: a library whose device failed may hang in its own clean-up.
    os._exit(code)
