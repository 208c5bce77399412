"""Input items to the messages of a canonical conversation.

Items are flat: a turn of the assistant is put together from its reasoning, messages and calls.
Items of unknown kinds (searches, approvals, …) are ignored: they say nothing to a model here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.common import images, signature, turns
from services.gateway.dialects.common.json_body import bad, convert, encode_text, unsupported
from services.gateway.dialects.openai_responses.fields import Item, Part

_TEXTS: Final = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
# Kinds of calls that a client runs itself, and where each keeps its arguments.
_CALLS: Final = frozenset(
    {"function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call"}
)
_ROLES: Final = {
    "user": conversation.ROLE_USER,
    "system": conversation.ROLE_SYSTEM,
    "developer": conversation.ROLE_SYSTEM,
    "assistant": conversation.ROLE_ASSISTANT,
}


class TurnBuilder:
    """Builds turns of items, in order.

    Attributes:
        orphan: call id of a result whose call was in no item; None where there is none.
    """

    def __init__(self) -> None:
        self._turns: list[turns.Turn] = []
        self._assistant: list[turns.Part] = []
        self._last_was_message = False
        self._names: dict[str, str] = {}
        self.orphan: str | None = None

    def instruct(self, instructions: str) -> None:
        """Adds a system turn."""
        if instructions:
            parts = [turns.Text(instructions)]
            self._turns.append(turns.Turn(conversation.ROLE_SYSTEM, parts))

    def add(self, items: Iterable[dict[str, Any]], path: str) -> None:
        """Adds items.

        Raises:
            FleetError: with the path of what cannot be read.
        """
        for index, raw in enumerate(items):
            where = f"{path}.{index}"
            self._add(convert(raw, Item, where), where)

    def finished(self) -> list[turns.Turn]:
        """All turns so far."""
        self._close()
        return self._turns

    def _add(self, item: Item, path: str) -> None:
        kind = item.type or ("message" if item.role is not None else "")
        if kind == "message":
            self._message(item, path)
        elif kind in _CALLS:
            self._assistant.append(self._call(item, kind, path))
            self._last_was_message = False
        elif kind.endswith("_call_output"):
            self._result(item, path)
        elif kind in {"compaction", "compaction_summary"}:
            self._summary(item)
        elif kind == "reasoning":
            self._assistant += _thought(item, path)
            self._last_was_message = False

    def _summary(self, item: Item) -> None:
        """Adds the summary of earlier turns (`/v1/responses/compact`)."""
        summary = signature.thought_in(item.encrypted_content or "")
        if summary:
            self._close()
            told = f"Summary of the conversation so far:\n\n{summary}"
            self._turns.append(turns.Turn(conversation.ROLE_USER, [turns.Text(told)]))

    def _message(self, item: Item, path: str) -> None:
        role = _ROLES.get(item.role or "")
        if role is None:
            raise bad(
                f"{path}.role", f"{item.role!r} is none of user, assistant, system, developer."
            )
        parts = parts_of(item.content, f"{path}.content")
        if role == conversation.ROLE_ASSISTANT:
            if self._last_was_message:
                self._close()
            self._assistant += parts
            self._last_was_message = True
            return
        self._close()
        self._turns.append(turns.Turn(role, parts))

    def _call(self, item: Item, kind: str, path: str) -> turns.Part:
        name = item.name or kind.removesuffix("_call")
        call_id = item.call_id
        if call_id is None:
            raise bad(f"{path}.call_id", "Field required.")
        self._names[call_id] = name
        match kind:
            case "function_call":
                found = item.arguments
            case "custom_tool_call":
                found = {"input": item.input}
            case _:
                found = item.action if item.action is not None else item.operation
        arguments = found if isinstance(found, str) else encode_text(found or {})
        return turns.Call(call_id, name, arguments)

    def _result(self, item: Item, path: str) -> None:
        # the local shell's output names its call by `id`
        call_id = item.id if item.type == "local_shell_call_output" else None
        call_id = item.call_id or call_id
        if call_id is None:
            raise bad(f"{path}.call_id", "Field required.")
        if call_id not in self._names:
            self.orphan = call_id
        self._close()
        output = item.output
        if isinstance(output, dict):
            # Older Codex: {"content": …, "success": …}
            output = output.get("content", encode_text(output))
        parts = parts_of(output, f"{path}.output")
        self._turns.append(turns.result(call_id, parts, names=self._names))

    def _close(self) -> None:
        """Ends the assistant's turn."""
        if self._assistant:
            self._turns.append(turns.Turn(conversation.ROLE_ASSISTANT, self._assistant))
            self._assistant = []
        self._last_was_message = False


def parts_of(content: Any, path: str) -> list[turns.Part]:
    """Content as text, a list of parts, or nothing.

    Raises:
        FleetError: with the path of what cannot be read.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [turns.Text(content)]
    found: list[turns.Part] = []
    for index, part in enumerate(convert(content, list[Part], path)):
        found += _part(part, f"{path}.{index}")
    return found


def _part(part: Part, path: str) -> Sequence[turns.Part]:
    if part.type in _TEXTS or (not part.type and part.text is not None):
        return [turns.Text(part.text or "")]
    match part.type:
        case "refusal":
            return [turns.Text(part.refusal or "")]
        case "input_image" | "image_url":
            return [_image(part, path)]
        case "input_file":
            raise unsupported(path, "files are not read; send their text.")
        case other:
            raise unsupported(f"{path}.type", f"parts of type {other!r} are not supported.")


def _image(part: Part, path: str) -> turns.Part:
    found: Any = part.image_url
    if isinstance(found, dict):
        found = found.get("url")
    if not isinstance(found, str):
        raise unsupported(f"{path}.image_url", "a picture must be sent as a base64 data: URL.")
    return images.from_url(found, f"{path}.image_url")


def _thought(item: Item, path: str) -> list[turns.Part]:
    """Reasoning in the clear, or inside of the opaque text that this fleet has made of it."""
    told = [part.text or "" for part in convert(item.content or [], list[Part], f"{path}.content")]
    text = "".join(told) or signature.thought_in(item.encrypted_content or "")
    text = text or "\n\n".join(part.text or "" for part in item.summary or ())
    return [turns.Reasoning(text)] if text else []
