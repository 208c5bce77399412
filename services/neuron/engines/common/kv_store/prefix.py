"""How far two token sequences are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Tokens = Sequence[int] | npt.NDArray[np.int32]


def common_prefix(left: Tokens, right: Tokens) -> int:
    """How many first tokens are the same."""
    length = min(len(left), len(right))
    if not length or left[0] != right[0]:
        return 0
    differs = np.asarray(left[:length]) != np.asarray(right[:length])
    first = int(differs.argmax())
    return first if differs[first] else length
