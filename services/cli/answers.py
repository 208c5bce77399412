"""One answer of a model on the terminal, as it comes."""

from __future__ import annotations

import contextlib

from rich.status import Status

from services.cli.sse import ChatFailedError, ChatUsage, GatewayClient, Piece
from services.cli.terminal import err, keep_waiting, out, printable, waiting


def first_model(client: GatewayClient) -> str:
    """A model that can chat: one that is loaded, else the first one that the gateway lists.

    Raises:
        ChatFailedError: it lists none, or refuses to say.
    """
    listed = client.models()
    if not listed:
        raise ChatFailedError("the gateway knows no model yet")
    # what a model can do may not be known before it is loaded
    models = [each for each in listed if "chat" in (each.get("capabilities") or ["chat"])]
    if not models:
        raise ChatFailedError(f"none of the gateway's {len(listed)} models can chat")
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
    printed = _Printed(waiting(f"{model} …"))
    try:
        with printed, contextlib.closing(client.chat(model, messages, usage, **options)) as pieces:
            for piece in pieces:
                printed.add(piece)
    except KeyboardInterrupt:
        err.print("stopped", style="dim")
        raise StoppedError(printed.text) from None
    first = usage.first_seconds if usage.first_seconds is not None else usage.total_seconds
    err.print(
        f"{model}: {usage.prompt_tokens} + {usage.completion_tokens} tokens,"
        f" first after {first:.2f} s, {usage.tokens_per_second:.0f} tokens/s",
        style="dim",
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
        """The answer so far, without its reasoning."""
        return "".join(self._text)

    def __enter__(self) -> None:
        self._status.start()

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        if self._last is not None:
            out.print()

    def add(self, piece: Piece) -> None:
        """Shows the next piece of the stream."""
        if piece.kind == "waiting":
            keep_waiting(self._status, printable(piece.text))
            return
        self._status.stop()
        if self._last is not None and self._last.kind != piece.kind:
            out.print("\n")
        style = "dim" if piece.kind == "reasoning" else None
        out.print(printable(piece.text, keep="\n\t"), end="", style=style, soft_wrap=True)
        if piece.kind == "text":
            self._text.append(piece.text)
        self._last = piece
