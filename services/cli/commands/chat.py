"""`cortex chat`: talk to a model through the gateway, as any client does."""

from __future__ import annotations

import contextlib
import importlib
from typing import Annotated, Final

import typer

from services.cli.answers import StoppedError, answer, first_model
from services.cli.options import DEFAULT_GATEWAY, GatewayOption, KeyOption
from services.cli.sse import ChatFailedError, GatewayClient
from services.cli.terminal import err, fail, out, printable

# What a shell expects of a program that Ctrl-C has ended.
_INTERRUPTED: Final = 130


def chat(
    prompt: Annotated[str, typer.Argument(help="Ask this and leave; without it, a dialogue.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="Default: one that is loaded.")] = "",
    system: Annotated[str, typer.Option("--system", help="What the model is told first.")] = "",
    gateway: GatewayOption = DEFAULT_GATEWAY,
    api_key: KeyOption = "",
) -> None:
    """Talk to a model. Ctrl-C stops an answer; an empty line or Ctrl-D ends a dialogue."""
    client = GatewayClient(gateway, api_key=api_key)
    try:
        chosen = model or first_model(client)
        messages = [{"role": "system", "content": system}] if system else []
        if prompt:
            answer(client, chosen, [*messages, {"role": "user", "content": prompt}])
            return
        _dialogue(client, chosen, messages)
    except StoppedError:
        raise typer.Exit(_INTERRUPTED) from None
    except ChatFailedError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{gateway}: {error} (is the gateway running? `cortex up` starts a whole fleet)")


def _dialogue(client: GatewayClient, model: str, messages: list[dict[str, str]]) -> None:
    with contextlib.suppress(ImportError):  # lines can be edited and come again
        importlib.import_module("readline")
    err.print(
        f"{printable(model)}: an empty line or Ctrl-D ends it, Ctrl-C stops an answer", style="dim"
    )
    while True:
        try:
            line = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            out.print()
            return
        if not line:
            return
        messages.append({"role": "user", "content": line})
        try:
            said = answer(client, model, messages)
        except StoppedError as stopped:
            said = stopped.text
        messages.append({"role": "assistant", "content": said})
