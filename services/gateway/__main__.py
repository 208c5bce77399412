"""`python -m services.gateway --config FILE`: one gateway until it is told to stop."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from google.protobuf.internal import api_implementation

from services.backplane import logs, settings
from services.backplane.process import lifecycle
from services.backplane.settings import SettingsError
from services.gateway import process
from services.gateway.server import new_event_loop
from services.gateway.settings import read
from services.gateway.workers import Keeper, as_worker


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the gateway; the exit code."""
    parser = argparse.ArgumentParser(prog="cortex-gateway", description="Serves HTTP clients.")
    parser.add_argument("--config", type=pathlib.Path, help="cortex.toml")
    # what a keeper of several workers tells each of them
    parser.add_argument("--listen-descriptor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--keeper", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    try:
        document = settings.load(arguments.config, os.environ)
        gateway, _ = read(document)
        logs.configure(document.section("log", logs.LogSettings), service="gateway")
        check_protobuf()
    except (SettingsError, ValueError) as error:
        lifecycle.complain(error)
        return lifecycle.EX_CONFIG
    if arguments.listen_descriptor is not None:
        return lifecycle.run(
            lambda shutdown: as_worker(
                process.run(document, shutdown, listen_descriptor=arguments.listen_descriptor),
                shutdown,
                keeper=arguments.keeper,
            ),
            loop_factory=new_event_loop,
        )
    if gateway.workers > 1:
        keeper = Keeper(gateway, sys.argv[1:] if argv is None else argv)
        return lifecycle.run(keeper.run)
    return lifecycle.run(
        lambda shutdown: process.run(document, shutdown), loop_factory=new_event_loop
    )


def check_protobuf() -> None:
    """Refuses the pure Python protobuf, which is 12 to 25 times as slow.

    Raises:
        SettingsError: it is installed.
    """
    kind: str = api_implementation.Type()
    if kind != "upb":
        raise SettingsError(
            f"protobuf runs on its {kind!r} implementation; the gateway needs `upb`"
            " (unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, install a binary wheel)"
        )


if __name__ == "__main__":
    sys.exit(main())
