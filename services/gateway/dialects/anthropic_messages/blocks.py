"""Messages and content blocks to the messages of a canonical conversation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.anthropic_messages.fields import (
    Block,
    Citations,
    InputMessage,
    PromptFields,
    Source,
)
from services.gateway.dialects.common import images, signature, turns
from services.gateway.dialects.common.json_body import bad, convert, encode_text, unsupported

# Claude Code's first system block changes with the client's version and says nothing to a model;
# left in, it makes every prompt differ at its very first token.
_BILLING: Final = "x-anthropic-billing-header:"

# Blocks about tools that ran on the API's own servers; their history is told as text.
_FOREIGN: Final = ("server_tool_use", "mcp_tool_use")


class TurnReader:
    """Reads one conversation.

    Args:
        lax: ignore blocks of unknown types (a beta header was sent).
    """

    def __init__(self, *, lax: bool) -> None:
        self._lax = lax
        self._names: dict[str, str] = {}

    def read(self, wire: PromptFields) -> list[turns.Turn]:
        """All turns, the system prompt first.

        Raises:
            FleetError: with the path of what cannot be read.
        """
        if not wire.messages:
            raise bad("messages", "at least one message is required")
        found = list(self._system(wire.system))
        for index, one in enumerate(wire.messages):
            found += self._turns(one, f"messages.{index}")
        return found

    def _system(self, system: str | list[Block] | None) -> Iterator[turns.Turn]:
        if not system:
            return
        if isinstance(system, str):
            parts: list[turns.Part] = [turns.Text(system)]
        else:
            kept = [one for one in system if not (one.text or "").startswith(_BILLING)]
            parts = self._parts(kept, "system")
        if parts:
            yield turns.Turn(conversation.ROLE_SYSTEM, parts)

    def _turns(self, one: InputMessage, path: str) -> list[turns.Turn]:
        content = one.content
        blocks = [Block(type="text", text=content)] if isinstance(content, str) else content
        match one.role:
            case "user":
                return self._user(blocks, f"{path}.content")
            case "assistant":
                parts = self._parts(blocks, f"{path}.content")
                return [turns.Turn(conversation.ROLE_ASSISTANT, parts)]
            case "system":
                parts = self._parts(blocks, f"{path}.content")
                return [turns.Turn(conversation.ROLE_SYSTEM, parts)] if parts else []
            case _:
                raise bad(f"{path}.role", f"{one.role!r} is none of user, assistant, system.")

    def _user(self, blocks: Sequence[Block], path: str) -> list[turns.Turn]:
        """Tool results first, as the API requires and templates expect, then the user's own text.

        System instructions among the blocks keep their place in the user's text.
        """
        found: list[turns.Turn] = []
        said: list[turns.Part] = []
        for index, block in enumerate(blocks):
            where = f"{path}.{index}"
            if block.type == "tool_result":
                found.append(self._result(block, where))
            elif block.type == "mid_conv_system":
                if said:
                    found.append(turns.Turn(conversation.ROLE_USER, said))
                    said = []
                parts = self._inner(block.content, f"{where}.content")
                found.append(turns.Turn(conversation.ROLE_SYSTEM, parts))
            else:
                said += self._part(block, where)
        if said or not found:
            found.append(turns.Turn(conversation.ROLE_USER, said))
        return found

    def _result(self, block: Block, path: str) -> turns.Turn:
        if block.tool_use_id is None:
            raise bad(f"{path}.tool_use_id", "Field required")
        parts = self._inner(block.content, f"{path}.content")
        return turns.result(block.tool_use_id, parts, names=self._names, is_error=block.is_error)

    def _inner(self, content: Any, path: str) -> list[turns.Part]:
        if content is None:
            return []
        if isinstance(content, str):
            return [turns.Text(content)]
        return self._parts(convert(content, list[Block], path), path)

    def _parts(self, blocks: Iterable[Block], path: str) -> list[turns.Part]:
        found: list[turns.Part] = []
        for index, block in enumerate(blocks):
            found += self._part(block, f"{path}.{index}")
        return found

    def _part(self, block: Block, path: str) -> list[turns.Part]:
        match block.type:
            case "text":
                if block.text is None:
                    raise bad(f"{path}.text", "Field required")
                return [turns.Text(block.text)]
            case "image":
                return [_image(block, path)]
            case "tool_use":
                return [self._call(block, path)]
            case "thinking" | "redacted_thinking":
                return _thought(block)
            case "document":
                return self._document(block, path)
            case _:
                return self._rare(block, path)

    def _rare(self, block: Block, path: str) -> list[turns.Part]:
        match block.type:
            case "search_result":
                _not_cited(block, path)
                head = f"{block.title or ''}\n{block.source or ''}".strip()
                return [turns.Text(head), *self._inner(block.content, f"{path}.content")]
            case "tool_reference":
                return [turns.Text(block.tool_name or block.name or "")]
            case "tool_addition" | "tool_removal":
                return []  # read by toolbox
            case "compaction":
                # What another server made of the turns before it; null where it failed to.
                return [turns.Text(block.content)] if isinstance(block.content, str) else []
            case "container_upload":
                raise unsupported(f"{path}.type", "no code is run here that could read files.")
            case "tool_result" | "mid_conv_system":
                raise bad(f"{path}.type", f"a {block.type} belongs into a user turn.")
            case other:
                return self._other(other, block, path)

    def _other(self, kind: str, block: Block, path: str) -> list[turns.Part]:
        if kind in _FOREIGN or kind.endswith("_tool_result"):
            told = {
                "server": block.server_name,
                "name": block.name,
                "input": block.input,
                "is_error": block.is_error or None,
                "content": _readable(block.content),
            }
            known = {key: value for key, value in told.items() if value is not None}
            return [turns.Text(f"[{kind}] {encode_text(known)}")]
        if self._lax:
            return [turns.Text(block.text)] if block.text else []
        raise unsupported(f"{path}.type", f"blocks of type {kind!r} are not supported.")

    def _call(self, block: Block, path: str) -> turns.Part:
        for field, value in (("id", block.id), ("name", block.name)):
            if not value:
                raise bad(f"{path}.{field}", "Field required")
        call_id, name = block.id or "", block.name or ""
        self._names[call_id] = name
        arguments = {} if block.input is None else block.input
        if not isinstance(arguments, dict):
            raise bad(f"{path}.input", "Expected an object.")
        return turns.Call(call_id, name, encode_text(arguments))

    def _document(self, block: Block, path: str) -> list[turns.Part]:
        source = block.source
        if not isinstance(source, Source):
            raise bad(f"{path}.source", "Field required")
        _not_cited(block, path)
        head = [turns.Text(one) for one in (block.title, block.context) if one]
        if source.type == "text" and source.data is not None:
            return [*head, turns.Text(source.data)]
        if source.type == "content" and source.content is not None:
            content = source.content
            if isinstance(content, str):
                return [*head, turns.Text(content)]
            return [*head, *self._parts(content, f"{path}.source.content")]
        raise unsupported(
            f"{path}.source.type", f"documents from {source.type!r} are not read; send their text."
        )


def _image(block: Block, path: str) -> turns.Picture:
    source = block.source
    if not isinstance(source, Source):
        raise bad(f"{path}.source", "Field required")
    if source.type == "base64":
        return images.from_base64(source.data or "", source.media_type or "", f"{path}.source.data")
    if source.type == "url" and source.url is not None:
        return images.from_url(source.url, f"{path}.source.url")
    raise unsupported(f"{path}.source.type", f"pictures from {source.type!r} are not supported.")


def _not_cited(block: Block, path: str) -> None:
    if isinstance(block.citations, Citations) and block.citations.enabled:
        raise unsupported(f"{path}.citations.enabled", "no model here cites its sources.")


def _readable(content: Any) -> Any:
    """A result of another server's tool without what only that server can read."""
    if isinstance(content, list):
        return [_readable(one) for one in content]
    if isinstance(content, dict):
        kept = {key: one for key, one in content.items() if not key.startswith("encrypted_")}
        return {key: _readable(one) for key, one in kept.items()}
    return content


def _thought(block: Block) -> list[turns.Part]:
    signed = block.signature or block.data or ""
    text = block.thinking or signature.thought_in(signed) or ""
    return [turns.Reasoning(text, signed)] if text else []
