"""Which roles may call which methods of a neuron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.backplane.security.roles import Role

_SERVICE: Final = "/cortex.v1.NeuronService"
_WORK: Final = frozenset({Role.GATEWAY, Role.OPERATOR})
_PLACEMENT: Final = frozenset({Role.REGISTRY, Role.OPERATOR})

METHODS: Final[Mapping[str, frozenset[Role]]] = {
    **dict.fromkeys(
        [f"{_SERVICE}/{name}" for name in ("Generate", "Session", "Embed", "CountTokens")], _WORK
    ),
    **dict.fromkeys([f"{_SERVICE}/{name}" for name in ("Load", "Unload", "CanFit")], _PLACEMENT),
    **dict.fromkeys(
        [f"{_SERVICE}/{name}" for name in ("GetStatus", "WatchStatus")], _WORK | _PLACEMENT
    ),
}
