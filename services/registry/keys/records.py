"""What the store keeps of keys and groups: the contract's own messages, as JSON."""

from __future__ import annotations

from typing import TypeVar

import structlog
from google.protobuf import json_format
from google.protobuf.message import Message

from cortex.v1 import key_service_pb2 as pb
from services.registry.store.store import FactKind, Facts

log = structlog.get_logger()

MessageT = TypeVar("MessageT", bound=Message)


def keys_of(facts: Facts) -> dict[str, pb.KeyRecord]:
    """Keys by id."""
    return _read(facts, FactKind.KEY, pb.KeyRecord)


def groups_of(facts: Facts) -> dict[str, pb.KeyGroup]:
    """Groups by name."""
    return _read(facts, FactKind.KEY_GROUP, pb.KeyGroup)


def uses_of(facts: Facts) -> dict[str, float]:
    """When keys were last used, by id, in seconds since the epoch."""
    kept = facts[FactKind.KEY_USE]
    return {key: float(text) for key, text in kept.items() if text.isdecimal()}


def text_of(message: Message) -> str:
    """A message as the store keeps it."""
    return json_format.MessageToJson(message, indent=None)


def _read(facts: Facts, kind: FactKind, shape: type[MessageT]) -> dict[str, MessageT]:
    """The messages of a kind by key; those that cannot be read are left out and told.

    A key that cannot be read is admitted nowhere. Fields of a newer version are passed over.
    """
    found: dict[str, MessageT] = {}
    for key, text in facts[kind].items():
        try:
            found[key] = json_format.Parse(text, shape(), ignore_unknown_fields=True)
        except json_format.ParseError:
            log.warning("store.unreadable", kind=kind.value, key=key)
    return found
