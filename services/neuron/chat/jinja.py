"""The environment that templates on the Hugging Face hub are written for, in a sandbox.

Source: transformers 4.44 to 5, `utils/chat_template_utils.py`.
"""

from __future__ import annotations

import datetime as dt
import json
import types
from collections.abc import Callable
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox


def environment(today: Callable[[], dt.datetime]) -> jinja2.Environment:
    """A new environment; `today` is the clock of `strftime_now`."""
    # not the immutable one: templates written for llama.cpp append to lists of their own
    made = jinja2.sandbox.SandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _GenerationTag],
    )
    made.filters["tojson"] = _tojson
    offered: dict[str, Any] = made.globals  # typed as jinja2's own functions alone
    offered["raise_exception"] = _raise
    offered["strftime_now"] = _clock(today)
    return made


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks what is trained on; here it means nothing."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _clock(today: Callable[[], dt.datetime]) -> Callable[[str], str]:
    def strftime_now(pattern: str) -> str:
        return today().strftime(pattern)

    return strftime_now


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - as transformers declares it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002 - likewise
) -> str:
    return json.dumps(
        value,
        default=_listed,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _listed(value: Any) -> list[Any]:
    """What a filter made item by item, which templates written for llama.cpp do not list first."""
    if isinstance(value, types.GeneratorType):
        return list(value)  # pyright: ignore[reportUnknownArgumentType] - a template's own
    raise TypeError(f"{type(value).__name__} is no JSON")
