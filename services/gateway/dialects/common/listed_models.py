"""What the listings of several dialects have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from cortex.v1 import model_pb2
from services.gateway.dialects.lookup import ListedModel

_CAPABILITIES: Final[Mapping[int, str]] = MappingProxyType(
    {
        model_pb2.CAPABILITY_CHAT: "chat",
        model_pb2.CAPABILITY_COMPLETION: "completion",
        model_pb2.CAPABILITY_EMBEDDING: "embedding",
        model_pb2.CAPABILITY_TOOLS: "tools",
        model_pb2.CAPABILITY_REASONING: "reasoning",
        model_pb2.CAPABILITY_VISION: "vision",
    }
)


def with_aliases(models: Sequence[ListedModel]) -> list[ListedModel]:
    """All models, then one more entry for each of their aliases."""
    found = list(models)
    for one in models:
        found += (dataclasses.replace(one, model=alias, aliases=()) for alias in one.aliases)
    return found


def capabilities_of(one: ListedModel) -> list[str]:
    """The names of what the model can do."""
    return [_CAPABILITIES[kind] for kind in one.capabilities if kind in _CAPABILITIES]
