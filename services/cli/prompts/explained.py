"""What of a recorded request each instance would have to read, and which bytes broke the prefix."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from services.cli.sse import ChatFailedError, GatewayClient
from services.cli.tables import table_of
from services.cli.terminal import fail

_PATHS: Final = {
    "anthropic": "/v1/messages/explain",
    "openai": "/v1/chat/completions/explain",
}


def explained(request: pathlib.Path, client: GatewayClient, gateway: str) -> dict[str, Any]:
    """The gateway's answer about a request's body in a file; says why and ends where it has none.

    The dialect is Anthropic's where the body has what only that has: `system`, or tools with
    `input_schema`.
    """
    try:
        body = request.read_bytes()
        read: Any = json.loads(body)
    except (OSError, ValueError) as error:
        fail(f"{request}: {error}")
        return {}
    if not isinstance(read, dict) or "messages" not in read:
        fail(f"{request}: no body of a chat: it has no `messages`")
        return {}
    tools: Any = read.get("tools") or []
    is_anthropic = "system" in read or any("input_schema" in str(tool) for tool in tools)
    try:
        answer: dict[str, Any] = client.post(
            _PATHS["anthropic" if is_anthropic else "openai"], body
        )
    except ChatFailedError as error:
        fail(str(error))
        return {}
    except OSError as error:
        fail(f"{gateway}: {error} (is the gateway running?)")
        return {}
    return answer


def prompt_table(answer: dict[str, Any]) -> Table:
    """Each instance with what it has of the prompt, and where that ends."""
    heads = ("neuron", "to read", "prompt", "in cache", "saved", "foretold", "seconds", "parts")
    table = table_of(*heads, title=f"{answer['model']}: what would be read")
    for one in answer["instances"]:
        if "error" in one:
            table.add_row(one["neuron"], Text("?", style="red"), *[""] * 5, one["error"])
            continue
        table.add_row(
            one["neuron"],
            *(
                str(one[name])
                for name in (
                    "tokens_to_read", "prompt_tokens", "cached_tokens", "saved_tokens",
                    "foretold_tokens",
                )
            ),
            f"{one['seconds_to_read']:.2f}",
            _parting(one.get("parts_at")),
        )  # fmt: skip
    return table


def _parting(parts: dict[str, Any] | None) -> str:
    if parts is None:
        return "nowhere: it goes on from all that is held"
    where = parts["segment"] or "in what the template writes"
    byte = "" if parts["byte"] is None else f", byte {parts['byte']}"
    return f"{where}{byte}: {parts['asked']!r} where {parts['held']!r} is held"
