"""How long a generation may stand still."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class StallLimits:
    """How long a generation may stand still before it fails.

    Attributes:
        slow_reader_seconds: seconds without credit from the reader before SLOW_READER.
        recovery_seconds: seconds without a worker before WORKER_LOST.
    """

    slow_reader_seconds: float
    recovery_seconds: float
