"""How patient a caller is: from the tier that a dialect has, the header, and the key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.common.json_body import bad

ClassName: TypeAlias = Literal["interactive", "default", "batch"]
HEADER: Final = "x-cortex-class"

_BY_NAME: Final[Mapping[str, generation.WorkClass.ValueType]] = MappingProxyType(
    {
        "interactive": generation.WORK_CLASS_INTERACTIVE,
        "default": generation.WORK_CLASS_DEFAULT,
        "batch": generation.WORK_CLASS_BATCH,
    }
)
# OpenAI's tiers and Anthropic's. `auto` leaves it to the key.
_BY_TIER: Final[Mapping[str, generation.WorkClass.ValueType]] = MappingProxyType(
    {
        "priority": generation.WORK_CLASS_INTERACTIVE,
        "default": generation.WORK_CLASS_DEFAULT,
        "standard_only": generation.WORK_CLASS_DEFAULT,
        "flex": generation.WORK_CLASS_BATCH,
        "batch": generation.WORK_CLASS_BATCH,
    }
)
_RANK: Final = MappingProxyType({one: rank for rank, one in enumerate(_BY_NAME.values())})


@dataclasses.dataclass(frozen=True, slots=True)
class ClassTerms:
    """What a key says of the classes of its requests.

    Attributes:
        usual: of a request that names none.
        highest: a request that asks for more gets this.
    """

    usual: ClassName = "default"
    highest: ClassName = "interactive"


def of_tier(service_tier: str | None) -> generation.WorkClass.ValueType:
    """The class of a `service_tier`; unset for `auto`, and for tiers that are not known here."""
    return _BY_TIER.get(service_tier or "", generation.WORK_CLASS_UNSPECIFIED)


def settled(
    of_body: generation.WorkClass.ValueType, headers: Mapping[str, str], terms: ClassTerms
) -> generation.WorkClass.ValueType:
    """The class of a request: by the header, else its body, else its key; never above the key's.

    Args:
        of_body: as from `of_tier`.
        headers: of the request.
        terms: of its key.

    Raises:
        FleetError: BAD_REQUEST, the header names no class.
    """
    wanted = of_body or _BY_NAME[terms.usual]
    if HEADER in headers:
        named = headers[HEADER]
        if named not in _BY_NAME:
            raise bad(HEADER, f"{named!r} is none of {', '.join(_BY_NAME)}.")
        wanted = _BY_NAME[named]
    highest = _BY_NAME[terms.highest]
    return wanted if _RANK[wanted] >= _RANK[highest] else highest
