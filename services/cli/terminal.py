"""What commands write: words and tables as they are, JSON, and one line where they fail."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from typing import Final, NoReturn, TextIO

import typer
from google.protobuf.message import Message
from rich.console import Console
from rich.measure import Measurement
from rich.status import Status
from rich.table import Table
from rich.text import Text

from services.backplane.rpc.protobuf_json import json_fields

# Of Unicode: what moves the cursor, ends a line, turns text around, or is half a character. But for
# the two that join the parts of one sign.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"
# Pipes and files have no right edge.
_NO_EDGE: Final = 10_000


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


def printable(words: str, *, keep: str = "") -> str:
    """Words of others: what would do something to the terminal is written as Python escapes it.

    Args:
        words: such as a client's, or a file's.
        keep: signs that may do what they do.
    """
    if words.isprintable():
        return words
    kept = _JOINERS + keep
    return "".join(
        sign if sign in kept or unicodedata.category(sign) not in _UNSEEN else ascii(sign)[1:-1]
        for sign in words
    )


def complain(message: str) -> None:
    """One line on standard error."""
    words = printable(message, keep="\n\t")
    err.print(Text.assemble(("cortex:", "red"), " ", words), soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Ends the command with one line."""
    complain(message)
    raise typer.Exit(1)


def print_json(message: Message) -> None:
    """A whole answer of the registry as JSON; see `json_fields`."""
    out.print_json(json.dumps(json_fields(message)))


def print_json_line(message: Message) -> None:
    """Prints a value as one line of JSON, for commands that print several."""
    out.print(json.dumps(json_fields(message)), soft_wrap=True)
