"""Entry of the process of a rank that follows."""

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
from services.neuron.engines import EngineUnavailableError
from services.neuron.engines.exllamav2.library.library import open_library
from services.neuron.engines.exllamav2.parallel.channel import Channel, ClosedError
from services.neuron.engines.exllamav2.parallel.messages import ORDERS, RankHello
from services.neuron.engines.exllamav2.parallel.rank import Rank

EX_UNAVAILABLE: Final = 69  # sysexits.h
EX_FAILED: Final = 70


def main() -> int:
    """Runs until rank 0 closes the socket.

    Returns: the exit code: 0 for an orderly end, 69 where the library cannot run here.
    """
    parser = argparse.ArgumentParser(prog="services.neuron.engines.exllamav2.parallel")
    for name in ("--fd", "--rank", "--ranks"):
        parser.add_argument(name, required=True, type=int)
    arguments = parser.parse_args()
    die_with_parent(signal.SIGKILL)  # so that no device stays taken
    write_unforeseen()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    for number in (signal.SIGINT, signal.SIGHUP):  # only rank 0 decides when it ends
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=arguments.fd) as leader:
        channel = Channel(leader, ORDERS)
        try:
            library = open_library()
        except EngineUnavailableError as error:
            channel.send(RankHello(str(error)))
            return EX_UNAVAILABLE
        # It imports the library at its top.
        from services.neuron.engines.exllamav2.parallel.follower import Follower

        channel.send(RankHello())
        try:
            Follower(library, Rank(arguments.rank, arguments.ranks), channel).run()
        except ClosedError:
            return 0
    return 0


if __name__ == "__main__":
    code = EX_FAILED
    try:
        code = main()
    except BaseException as error:  # noqa: BLE001 - its pass failed; rank 0 waits for it
        sys.excepthook(type(error), error, error.__traceback__)
    sys.stderr.flush()
    # Not sys.exit: a library whose device failed may hang in its own clean-up.
    os._exit(code)
