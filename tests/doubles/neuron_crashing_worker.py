"""The worker itself, which has a bug where a task begins: it dies with its variables at hand."""

from __future__ import annotations

import sys

from services.neuron.worker.__main__ import main
from services.neuron.worker.loop import EngineLoop
from tests.doubles.planted import crash

if __name__ == "__main__":
    EngineLoop._submit = crash  # type: ignore[method-assign]
    sys.exit(main())
