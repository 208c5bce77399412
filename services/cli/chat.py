"""`cortex chat`: talk to a model through the gateway, as any client does."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from services.cli.registry_client import err, fail, out
from services.cli.sse import ChatFailedError, ChatUsage, GatewayClient

DEFAULT_GATEWAY: Final = "http://127.0.0.1:31313"

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
    """Talk to a model. An empty line or Ctrl-D ends a dialogue."""
    client = GatewayClient(gateway, api_key=api_key)
    try:
        chosen = model or first_model(client)
        messages = [{"role": "system", "content": system}] if system else []
        if prompt:
            answer(client, chosen, [*messages, {"role": "user", "content": prompt}])
            return
        _dialogue(client, chosen, messages)
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
    """Prints one answer as it comes, with its figures below.

    Raises:
        ChatFailedError: with the gateway's words.
        OSError: nobody answers.
    """
    usage = ChatUsage()
    pieces: list[str] = []
    for piece in client.chat(model, messages, usage, **options):
        pieces.append(piece)
        out.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
    out.print()
    first = usage.first_seconds if usage.first_seconds is not None else usage.total_seconds
    err.print(
        f"[dim]{model}: {usage.prompt_tokens} + {usage.completion_tokens} tokens,"
        f" first after {first:.2f} s, {usage.tokens_per_second:.0f} tokens/s[/]",
        highlight=False,
    )
    return "".join(pieces)


def _dialogue(client: GatewayClient, model: str, messages: list[dict[str, str]]) -> None:
    while True:
        try:
            line = out.input("[bold]> [/]").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not line:
            return
        messages.append({"role": "user", "content": line})
        messages.append({"role": "assistant", "content": answer(client, model, messages)})
