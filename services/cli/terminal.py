"""What commands write: words and tables as they are, JSON, and one line where they fail."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any, Final, NoReturn, TextIO

import typer
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from rich.console import Console
from rich.measure import Measurement
from rich.status import Status
from rich.table import Table
from rich.text import Text

# Pipes and files have no right edge.
_NO_EDGE: Final = 10_000
_LONG: Final = frozenset(
    {
        *(FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_SINT64),
        *(FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64),
    }
)


def _console(stream: TextIO, *, stderr: bool = False) -> Console:
    """A console that changes nothing: what stands in brackets or between colons is no markup."""
    edge = None if stream.isatty() or "COLUMNS" in os.environ else _NO_EDGE
    return Console(stderr=stderr, width=edge, markup=False, emoji=False, highlight=False)


out = _console(sys.stdout)
err = _console(sys.stderr, stderr=True)


def show(*tables: Table) -> None:
    """Tables with every word whole, identifiers above all.

    They are wider than the terminal where that takes more room than there is.
    """
    roomy = out.options.update(width=_NO_EDGE)
    for table in tables:
        for column in table.columns:
            words = [Measurement.get(out, roomy, each).minimum for each in column.cells]
            column.min_width = max(words, default=0)
        needed = Measurement.get(out, roomy, table).minimum
        if needed > out.width:
            table.width = needed
        out.print(table, crop=False)


def waiting(words: str) -> Status:
    """Shows what is waited for while its context is open; `keep_waiting` changes the words."""
    return out.status(Text(words))


def keep_waiting(status: Status, words: str) -> None:
    """Changes what a status says."""
    status.update(Text(words))


def complain(message: str) -> None:
    """One line on standard error."""
    err.print(Text.assemble(("cortex:", "red"), " ", message), soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Ends the command with one line."""
    complain(message)
    raise typer.Exit(1)


def print_json(message: Message) -> None:
    """A whole answer of the registry as JSON; see `json_fields`."""
    out.print_json(json.dumps(json_fields(message)))


def print_json_line(message: Message) -> None:
    """Likewise as one line, for commands that print several."""
    out.print(json.dumps(json_fields(message)), soft_wrap=True)


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
