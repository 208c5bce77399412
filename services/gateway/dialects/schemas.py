"""JSON Schemas (2020-12) of what the gateway reads and answers, from the tables by which it does.

A body's comes from its struct, so nobody keeps it beside the decoder; a message's from the
contract, as its JSON form is read; an error's from errors that are worded for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from services.gateway.dialects.dialect import BodyTable

_REFERENCE: Final = "#/components/schemas/{name}"
# In JSON these are texts: `3600s`, `2030-01-01T00:00:00Z`, base64.
_TEXTS: Final = frozenset({"google.protobuf.Duration", "google.protobuf.Timestamp"})
_KINDS: Final[dict[int, list[str]]] = {
    FieldDescriptor.CPPTYPE_STRING: ["string", "null"],
    FieldDescriptor.CPPTYPE_BOOL: ["boolean", "null"],
    # a number may be written as text, which is how 64 bits are often sent
    FieldDescriptor.CPPTYPE_FLOAT: ["number", "string", "null"],
    FieldDescriptor.CPPTYPE_DOUBLE: ["number", "string", "null"],
}
_WHOLE_NUMBER: Final = ["integer", "string", "null"]
_NAMES: Final[dict[type, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


class Schemas:
    """Makes schemas, and keeps those that others refer to.

    Args:
        shapes: all structs that are going to be asked for: their names are told apart together.
    """

    def __init__(self, shapes: Iterable[type[Any]]) -> None:
        ordered = list(dict.fromkeys(shapes))
        made, components = msgspec.json.schema_components(
            ordered, schema_hook=lambda _: {}, ref_template=_REFERENCE
        )
        self._by_shape = dict(zip(ordered, made, strict=True))
        self.components: dict[str, Any] = components

    def of_struct(self, shape: type[Any]) -> dict[str, Any]:
        """The schema of a struct."""
        return self._by_shape[shape]

    def of_body(self, table: BodyTable) -> dict[str, Any]:
        """The schema of a body; what is passed over or turned off in it is in order."""
        found = self._by_shape[table.shape]
        component = self.components[found["$ref"].rpartition("/")[2]]
        others: dict[str, Any] = {name: {} for name in sorted(table.rules.ignored)}
        for name, values in sorted(table.rules.refused.items()):
            others[name] = {"enum": [None, *values]}
        component["properties"] = {**others, **component["properties"]}
        return found

    def of_message(self, message: Descriptor) -> dict[str, Any]:
        """The schema of a message as JSON, by either spelling of its fields' names."""
        if message.full_name in _TEXTS:
            return {"type": "string"}
        name = message.full_name
        if name not in self.components:
            fields: dict[str, Any] = {}
            self.components[name] = {"type": "object", "properties": fields}
            for field in message.fields:
                fields[field.name] = fields[field.json_name] = self._of_field(field)
        return {"$ref": _REFERENCE.format(name=name)}

    def _of_field(self, field: FieldDescriptor) -> dict[str, Any]:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            value = self._of_one(kind.fields_by_name["value"])
            return {"type": ["object", "null"], "additionalProperties": value}
        if field.is_repeated:
            return {"type": ["array", "null"], "items": self._of_one(field)}
        return self._of_one(field)

    def _of_one(self, field: FieldDescriptor) -> dict[str, Any]:
        if field.message_type is not None:
            return {"anyOf": [self.of_message(field.message_type), {"type": "null"}]}
        if field.enum_type is not None:
            return _of_enum(field.enum_type)
        return {"type": _KINDS.get(field.cpp_type, _WHOLE_NUMBER)}


def like(values: Sequence[Any]) -> dict[str, Any]:
    """The schema of what looks like these: fields that all have are required."""
    kinds = sorted({_NAMES[type(value)] for value in values})
    found: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    objects = [value for value in values if isinstance(value, dict)]
    if objects:
        names = sorted({name for one in objects for name in one})
        found["properties"] = {
            name: like([one[name] for one in objects if name in one]) for name in names
        }
        found["required"] = [name for name in names if all(name in one for one in objects)]
    return found


def _of_enum(enum: EnumDescriptor) -> dict[str, Any]:
    return {"anyOf": [{"enum": [one.name for one in enum.values]}, {"type": ["integer", "null"]}]}
