"""Messages as JSON for people and programs that do not know the contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_LONG: Final = frozenset(
    {
        *(FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_SINT64),
        *(FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64),
    }
)


def json_fields(message: Message) -> dict[str, Any]:
    """A message as JSON with the contract's own field names.

    Empty lists and zeroes are there, and 64-bit numbers are numbers, so that nobody who reads it
    has to know the contract. A message that is unset is absent.
    """
    fields: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _turn_to_numbers(fields, message.DESCRIPTOR.fields)
    return fields


def not_an_object(given: dict[str, Any], message: Message) -> str | None:
    """The field that stands for a message and is given as something else; None: there is none.

    `json_format` takes anything empty for a message without fields: a text, a list.

    Args:
        given: JSON, by either form of the fields' names.
        message: of the kind that it is to become.
    """
    return _not_an_object(given, message.DESCRIPTOR)


def _not_an_object(given: Any, kind: Any) -> str | None:
    for descriptor in kind.fields:
        value = given.get(descriptor.name, given.get(descriptor.json_name))
        inner = descriptor.message_type
        if value is None or inner is None or inner.file.package == "google.protobuf":
            continue
        if inner.GetOptions().map_entry:
            inner = inner.fields_by_name["value"].message_type
            if inner is None or not isinstance(value, dict):  # what is no map is refused anyway
                continue
            each = list(value.values())
        else:
            each = value if descriptor.is_repeated and isinstance(value, list) else [value]
        for one in each:
            if not isinstance(one, dict):
                return str(descriptor.name)
            found = _not_an_object(one, inner)
            if found is not None:
                return found
    return None


def _turn_to_numbers(fields: dict[str, Any], descriptors: Iterable[Any]) -> None:
    for descriptor in descriptors:
        value = fields.get(descriptor.name)
        if value is None:
            continue
        if descriptor.type in _LONG:
            fields[descriptor.name] = (
                [int(each) for each in value] if isinstance(value, list) else int(value)
            )
        elif descriptor.message_type is not None:
            _turn_within(value, descriptor.message_type)


def _turn_within(value: Any, kind: Any) -> None:
    if kind.GetOptions().map_entry:
        within = kind.fields_by_name["value"]
        for each in value:
            entry = {"value": value[each]}
            _turn_to_numbers(entry, [within])
            value[each] = entry["value"]
        return
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict):  # durations and times are texts
            _turn_to_numbers(each, kind.fields)
