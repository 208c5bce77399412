"""`cortex neuron` and `python -m services.neuron`: one neuron as a process."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Final

from services.backplane import logs
from services.backplane import settings as configuration
from services.backplane.first_ended import first_ended
from services.backplane.process import lifecycle
from services.backplane.process.lifecycle import EX_SOFTWARE, Shutdown, reloading
from services.backplane.process.memory import return_large_blocks
from services.backplane.process.reload import SettingsReload
from services.backplane.process.watchdog import watching
from services.backplane.settings import Document
from services.backplane.tracing.settings import tracing
from services.neuron.settings import NeuronSettings, read
from services.neuron.wire import serving

# A daemon whose event loop stood still for so long ends; its workers end with it.
_STALL_SECONDS: Final = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a neuron until it is told to stop. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="cortex neuron", description=__doc__)
    parser.add_argument("--config", type=pathlib.Path, help="cortex.toml")
    arguments = parser.parse_args(argv)
    try:
        document = configuration.load(arguments.config, os.environ)
        logs.configure(document.section("log", logs.LogSettings), service="neuron")
    except configuration.SettingsError as error:
        lifecycle.complain(error)
        return lifecycle.EX_CONFIG
    return_large_blocks()
    return lifecycle.run(lambda shutdown: serve(document, shutdown))


async def serve(document: Document, shutdown: Shutdown) -> int:
    """Serves until the end is asked for. Returns the exit code.

    Args:
        document: all settings; read again at SIGHUP.
        shutdown: ends it.

    Raises:
        SettingsError: the `[neuron]` section cannot be used, or strangers would be let in.
        PortTakenError: it cannot listen where it should.
    """
    settings, credentials = read(document)
    with tracing(document, "neuron") as tracer, watching(_STALL_SECONDS):
        async with serving(settings, credentials=credentials, tracer=tracer) as served:
            with reloading(_reload(document)):
                await first_ended(shutdown.wait(), served.broken.wait())
    return EX_SOFTWARE if served.broken.is_set() else 0


def _reload(document: Document) -> SettingsReload:
    """SIGHUP takes in `[log]`; model folders are looked at all the time; all else needs a restart.

    A neuron that is told to restart drains first, so its other settings hold as long as it lives.
    """
    return SettingsReload(
        document,
        sections=("neuron", "fleet", "log", "telemetry"),
        check=lambda fresh: fresh.section("neuron", NeuronSettings),
        live={
            "log": lambda fresh: logs.configure(
                fresh.section("log", logs.LogSettings), service="neuron"
            )
        },
    )


if __name__ == "__main__":
    sys.exit(main())
