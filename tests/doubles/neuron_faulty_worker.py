"""A worker for faults that a real one cannot be made to have. Speaks frames, as `python -m` does."""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import time

from services.neuron.engine_api.frames import (
    COMMANDS,
    HEADER,
    Beat,
    Hello,
    Load,
    LoadAdvanced,
    Loaded,
    pack,
)
from services.neuron.engine_api.model import LoadStep, ModelInfo


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", required=True)
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    daemon = socket.socket(fileno=arguments.fd)
    if arguments.fault == "mute":
        time.sleep(3600)
    if arguments.fault == "stillborn":
        sys.stderr.write("the driver said no\n")
        sys.exit(3)
    daemon.sendall(pack(Hello(os.getpid(), "llamacpp")))
    if arguments.fault == "garbage":
        daemon.sendall(HEADER.pack(3) + b"\xff\xff\xff")
    load = receive(daemon)
    assert isinstance(load, Load)
    serve(daemon, arguments.fault, load.plan.instance_id)


def serve(daemon: socket.socket, fault: str, instance_id: str) -> None:
    if fault == "endless load":
        while True:
            daemon.sendall(pack(Beat("loading", 1)))
            daemon.sendall(pack(Beat("loading", 1)))
            time.sleep(0.05)
    daemon.sendall(pack(LoadAdvanced(instance_id, LoadStep(1, 1), warming=True)))
    info = ModelInfo("llamacpp", "llama", 100, 1, 1, 100, 300, chat_template="{{ messages }}")
    daemon.sendall(pack(Loaded(instance_id, info, 0.1)))
    while not select.select([daemon], [], [], 0.1)[0]:
        daemon.sendall(pack(Beat("", 1)))
    receive(daemon)  # so that it fails once it is READY
    if fault == "glutton":
        daemon.sendall(pack(Beat("", 1 << 50)))
    if fault in {"glutton", "stalled"}:
        time.sleep(3600)
    sys.stderr.write("a kernel went wrong\n")
    os._exit(70)


def receive(daemon: socket.socket):
    buffer = b""
    while len(buffer) < HEADER.size or len(buffer) < HEADER.size + HEADER.unpack_from(buffer)[0]:
        data = daemon.recv(1 << 16)
        if not data:
            sys.exit(0)
        buffer += data
    return COMMANDS.decode(buffer[HEADER.size :][: HEADER.unpack_from(buffer)[0]])


if __name__ == "__main__":
    main()
