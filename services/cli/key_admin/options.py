"""Options of `cortex keys` that several of its commands have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import limits_pb2
from services.backplane.units import parse_seconds

# Those of the devices' time cannot be held to yet.
_LIMITS: Final = tuple(
    name for name in limits_pb2.Limits.DESCRIPTOR.fields_by_name if not name.startswith("gpu_")
)

RoleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        help="user (asks models), metrics (looks at the console), operator (loads, drains), admin"
        " (makes keys). Several are possible. For a key: user unless said.",
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option("--model", help="Only these models or aliases, `*` stands for anything."),
]
DialectsOption = Annotated[
    list[str] | None,
    typer.Option("--dialect", help="Only these: openai_chat, anthropic_messages, `ollama_*`, …"),
]
UsualOption = Annotated[
    str,
    typer.Option("--usual-class", help="Of requests that name none: interactive, default, batch."),
]
HighestOption = Annotated[
    str, typer.Option("--highest-class", help="Requests that ask for a higher one get this.")
]
LimitsOption = Annotated[
    list[str] | None,
    typer.Option("--limit", help=f"NAME=NUMBER, with NAME one of {', '.join(_LIMITS)}."),
]


def scopes_of(
    models: Sequence[str] | None, dialects: Sequence[str] | None, usual: str, highest: str
) -> pb.KeyScopes | None:
    """The scopes that the options give a key or a group; None where no option was given."""
    if not (models or dialects or usual or highest):
        return None
    return pb.KeyScopes(
        models=models or (), dialects=dialects or (), usual_class=usual, highest_class=highest
    )


def limits_of(given: Sequence[str] | None) -> limits_pb2.Limits | None:
    """Parses `--limit NAME=NUMBER`; None where none was given."""
    if not given:
        return None
    limits = limits_pb2.Limits()
    for one in given:
        name, _, number = one.partition("=")
        try:
            setattr(limits, name, int(number))
        except (AttributeError, ValueError) as error:
            told = f"{one!r} is no NAME=NUMBER with a name of {', '.join(_LIMITS)}"
            raise typer.BadParameter(told, param_hint="--limit") from error
    return limits


def seconds_of(text: str) -> float:
    """Parses a duration such as `90d` to seconds."""
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
