"""A neuron whose workers fail on demand; else as `python -m services.neuron`."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from services.backplane import logs
from services.backplane import settings as configuration
from services.backplane.process import lifecycle
from services.backplane.process.lifecycle import Shutdown
from services.backplane.settings import Document
from services.neuron.settings import NeuronSettings
from services.neuron.wire import serving


def injecting(*, engine: str, fd: int) -> Sequence[str]:
    """The command line of such a worker."""
    module = "tests.doubles.neuron_injecting_worker"
    return [sys.executable, "-m", module, "--engine", engine, "--fd", str(fd)]


async def serve(document: Document, shutdown: Shutdown) -> int:
    """Serves until the end is asked for."""
    settings = document.section("neuron", NeuronSettings)
    async with serving(settings, worker_command=injecting):
        await shutdown.wait()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=pathlib.Path, required=True)
    document = configuration.load(parser.parse_args().config, os.environ)
    logs.configure(document.section("log", logs.LogSettings), service="neuron")
    sys.exit(lifecycle.run(lambda shutdown: serve(document, shutdown)))
