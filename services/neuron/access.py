"""Which roles may call which methods of a neuron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.backplane.security.roles import Role

NEURON_SERVICE: Final = "cortex.v1.NeuronService"
_SERVICE: Final = f"/{NEURON_SERVICE}"
_WORK: Final = frozenset({Role.GATEWAY, Role.OPERATOR})
_WORK_NAMES: Final = (
    "Generate",
    "Session",
    "Embed",
    "CountTokens",
    "WatchCache",
    "ComparePrompt",
)
_STORAGE: Final = "/cortex.v1.StorageService"
_NEIGHBOURS: Final = frozenset({Role.NEURON, Role.OPERATOR})
_PLACEMENT: Final = frozenset({Role.REGISTRY, Role.OPERATOR})

METHODS: Final[Mapping[str, frozenset[Role]]] = {
    **dict.fromkeys([f"{_SERVICE}/{name}" for name in _WORK_NAMES], _WORK),
    **dict.fromkeys(
        [f"{_SERVICE}/{name}" for name in ("Load", "Unload", "UpdateInstance", "CanFit")],
        _PLACEMENT,
    ),
    **dict.fromkeys([f"{_STORAGE}/{name}" for name in ("Fetch", "RemoveStored")], _PLACEMENT),
    **dict.fromkeys([f"{_STORAGE}/{name}" for name in ("DescribeFiles", "ReadFile")], _NEIGHBOURS),
    **dict.fromkeys(
        [f"{_SERVICE}/{name}" for name in ("GetStatus", "WatchStatus")], _WORK | _PLACEMENT
    ),
}
