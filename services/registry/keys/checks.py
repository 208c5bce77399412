"""What keys and groups may be. Pure: raises `FleetError` that names the field."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import limits_pb2
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.security.principals import OTHERS, SYSTEM

ROLES: Final = ("user", "metrics", "operator", "admin")
CLASSES: Final = ("interactive", "default", "batch")
_LONGEST_NAME: Final = 128
_MOST_SECONDS: Final = 2**40
_MOST_PATTERNS: Final = 256
# More would take long to compare, and say nothing that fewer do not.
_MOST_STARS: Final = 8
_GROUP: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")


def check_name(value: str, field: str) -> None:
    """Checks the name of a key or a principal."""
    if not value or len(value) > _LONGEST_NAME:
        raise _bad(field, f"{field} has 1 to {_LONGEST_NAME} characters.")
    if value in {OTHERS, SYSTEM}:
        raise _bad(field, f"{field} {value!r} is what usage without a key of its own is told as.")
    if not value.isprintable() or "/" in value or value != value.strip():
        raise _bad(field, f"{field} {value!r} has characters that cannot stand in one.")


def check_end(time: Timestamp, field: str, *, now: float) -> None:
    """Checks when a key ends; `now` is in seconds since 1970."""
    try:
        seconds = protobuf_time.seconds(time)
    except ValueError as error:  # a protobuf's seconds may be any number
        raise _bad(field, f"{field} is no time: {error}") from None
    if seconds <= now:
        raise _bad(field, "That is over already.")


def check_group_name(value: str) -> None:
    """Checks the name of a group."""
    if not _GROUP.fullmatch(value):
        told = "letters, digits, '.', '_' and '-' can stand in it, 64 of them at most"
        raise _bad("group.name", f"{value!r} is no name of a group: {told}.")


def check_roles(roles: Iterable[str], scopes: pb.KeyScopes, field: str) -> None:
    """Checks what a holder may."""
    for role in roles:
        if role not in ROLES:
            raise _bad(field, f"{role!r} is none of {', '.join(ROLES)}.")
    if set(roles) - {"user"} and (scopes.models or scopes.dialects):
        told = "Whoever looks at the fleet or operates it sees all of it: its scopes name no models"
        raise _bad(field, f"{told} and no dialects. Make a key of its own for that.")


def check_limits(limits: limits_pb2.Limits, field: str) -> None:
    """Checks that a key's limits are numbers that can be counted to."""
    for name in ("gpu_seconds_per_day", "gpu_seconds_per_month"):
        if not 0 <= getattr(limits, name) <= _MOST_SECONDS:  # nor is one that is no number
            told = f"{name} is a number of seconds, 0 to {_MOST_SECONDS}."
            raise FleetError(Reason.BAD_REQUEST, told, field=f"{field}.{name}")


def check_scopes(scopes: pb.KeyScopes, field: str) -> None:
    """Checks what a key is for."""
    for name in ("models", "dialects"):
        patterns: list[str] = list(getattr(scopes, name))
        if len(patterns) > _MOST_PATTERNS:
            raise _bad(f"{field}.{name}", f"At most {_MOST_PATTERNS} of them can be told apart.")
        for pattern in patterns:
            if not 0 < len(pattern) <= 2 * _LONGEST_NAME or not pattern.isprintable():
                raise _bad(f"{field}.{name}", f"{pattern!r} matches no name.")
            if pattern.count("*") > _MOST_STARS:
                raise _bad(f"{field}.{name}", f"{pattern!r} has more than {_MOST_STARS} asterisks.")
    for name in ("usual_class", "highest_class"):
        value: str = getattr(scopes, name)
        if value and value not in CLASSES:
            raise _bad(f"{field}.{name}", f"{value!r} is none of {', '.join(CLASSES)}.")


def _bad(field: str, message: str) -> FleetError:
    return FleetError(Reason.BAD_REQUEST, message, field=field)
