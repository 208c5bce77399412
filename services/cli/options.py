"""Options that several commands have."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Annotated, Final

import typer

DEFAULT_GATEWAY: Final = "http://127.0.0.1:31313"

GatewayOption = Annotated[
    str, typer.Option("--gateway", envvar="CORTEX_GATEWAY_URL", help="URL of the gateway.")
]
KeyOption = Annotated[
    str, typer.Option("--api-key", envvar="CORTEX_API_KEY", help="Key, where the gateway asks.")
]
ConfigOption = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--config", "-c", envvar="CORTEX_CONFIG", help="Default: /etc/cortex/cortex.toml, if there."
    ),
]


def config_arguments(config: pathlib.Path | None) -> Sequence[str]:
    """The option as a service's own command line has it."""
    return () if config is None else ("--config", str(config))
