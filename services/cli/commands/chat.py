"""`cortex chat`: talk to a model through the gateway, as any client does."""

from __future__ import annotations

import contextlib
import importlib
from typing import Annotated, Final

import typer
from rich.status import Status

from services.cli.registry_client import err, fail, out
from services.cli.sse import ChatFailedError, ChatUsage, GatewayClient, Piece

DEFAULT_GATEWAY: Final = "http://127.0.0.1:31313"
# What a shell expects of a program that Ctrl-C has ended.
_INTERRUPTED: Final = 130

GatewayOption = Annotated[
    str, typer.Option("--gateway", envvar="CORTEX_GATEWAY_URL", help="URL of the gateway.")
]
KeyOption = Annotated[
    str, typer.Option("--api-key", envvar="CORTEX_API_KEY", help="Key, where the gateway asks.")
]


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


def first_model(client: GatewayClient) -> str:
    """A model that is loaded, else the first one that the gateway lists.

    Raises:
        ChatFailedError: it lists none.
    """
    _, body = client.get("/v1/models")
    models = (body or {}).get("data", [])
    if not models:
        raise ChatFailedError("the gateway knows no model yet")
    loaded = [model for model in models if model.get("loaded")]
    return str((loaded or models)[0]["id"])


def answer(
    client: GatewayClient, model: str, messages: list[dict[str, str]], **options: object
) -> str:
    """Prints one answer as it comes, with its figures below; returns its text.

    Ctrl-C stops the model.

    Raises:
        ChatFailedError: with the gateway's words.
        OSError: nobody answers.
        StoppedError: by Ctrl-C.
    """
    usage = ChatUsage()
    printed = _Printed(out.status(f"{model} …"))
    try:
        with printed, contextlib.closing(client.chat(model, messages, usage, **options)) as pieces:
            for piece in pieces:
                printed.add(piece)
    except KeyboardInterrupt:
        err.print("[dim]stopped[/]")
        raise StoppedError(printed.text) from None
    first = usage.first_seconds if usage.first_seconds is not None else usage.total_seconds
    err.print(
        f"[dim]{model}: {usage.prompt_tokens} + {usage.completion_tokens} tokens,"
        f" first after {first:.2f} s, {usage.tokens_per_second:.0f} tokens/s[/]",
        highlight=False,
    )
    return printed.text


class StoppedError(Exception):
    """The user stopped an answer.

    Attributes:
        text: of it, so far.
    """

    def __init__(self, text: str) -> None:
        super().__init__("stopped")
        self.text = text


class _Printed:
    """An answer on the terminal: what it waits for, its reasoning dimmed, its text."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._last: Piece | None = None
        self._text: list[str] = []

    @property
    def text(self) -> str:
        """Without the reasoning."""
        return "".join(self._text)

    def __enter__(self) -> None:
        self._status.start()

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        if self._last is not None:
            out.print()

    def add(self, piece: Piece) -> None:
        """Shows a piece."""
        if piece.kind == "waiting":
            self._status.update(piece.text)
            return
        self._status.stop()
        if self._last is not None and self._last.kind != piece.kind:
            out.print("\n")
        style = "dim" if piece.kind == "reasoning" else None
        out.print(piece.text, end="", style=style, markup=False, highlight=False, soft_wrap=True)
        if piece.kind == "text":
            self._text.append(piece.text)
        self._last = piece


def _dialogue(client: GatewayClient, model: str, messages: list[dict[str, str]]) -> None:
    with contextlib.suppress(ImportError):  # lines can be edited and come again
        importlib.import_module("readline")
    err.print(f"[dim]{model}: an empty line or Ctrl-D ends it, Ctrl-C stops an answer[/]")
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
