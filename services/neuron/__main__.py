"""`cortex neuron` and `python -m services.neuron`: one neuron as a process."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from services.backplane import logs
from services.backplane import settings as configuration
from services.backplane.process import lifecycle
from services.neuron import wire


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
    return lifecycle.run(lambda shutdown: wire.serve(document, shutdown))


if __name__ == "__main__":
    sys.exit(main())
