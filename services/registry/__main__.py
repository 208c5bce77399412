"""`python -m services.registry`: runs the registry in a process of its own."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from services.backplane import settings
from services.backplane.logs import LogSettings, configure
from services.backplane.process import lifecycle
from services.backplane.process.lifecycle import Shutdown
from services.registry.wire import serve


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the registry until SIGTERM or SIGINT.

    Args:
        argv: arguments without the program's name; None means those of the process.

    Returns: the exit code.
    """
    parser = argparse.ArgumentParser(prog="cortex registry", description=__doc__)
    parser.add_argument("--config", "-c", type=pathlib.Path, help="cortex.toml")
    path = parser.parse_args(argv).config

    async def run(shutdown: Shutdown) -> int:
        document = settings.load(path, os.environ)
        configure(document.section("log", LogSettings), service="registry")
        return await serve(document, shutdown)

    return lifecycle.run(run)


if __name__ == "__main__":
    sys.exit(main())
