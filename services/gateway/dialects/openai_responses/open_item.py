"""Output items while they are streamed: first events, deltas, last events."""

from __future__ import annotations

from typing import Any, Final, Protocol

from typing_extensions import override

from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.openai_responses.output import (
    OutputItems,
    custom_input,
    reasoning_part,
    summary_part,
    text_part,
)
from services.gateway.dialects.openai_responses.sse_event import NumberedEvents

_TEXT_DELTA: Final = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","sequence_number":'
)


class OpenItem(Protocol):
    """One output item while it is streamed."""

    def begin(self) -> bytes:
        """The first events of the item."""
        ...

    def end(self, status: str) -> tuple[bytes, dict[str, Any]]:
        """The last events of the item, and the complete item."""
        ...


class OpenText(OpenItem):
    """A message with one part of text; a delta is joined from pre-encoded pieces."""

    def __init__(self, events: NumberedEvents, items: OutputItems, index: int) -> None:
        self._events = events
        self._output_items = items
        self._index = index
        self._item = items.message(index, None, status="in_progress")
        self._place = {
            "item_id": self._item["id"],
            "output_index": index,
            "content_index": 0,
        }
        self._number = events.number
        self._encode = encode
        self._middle = b"," + encode(self._place)[1:-1] + b',"logprobs":[],"delta":'
        self._texts: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    @override
    def begin(self) -> bytes:
        """The item, then its part."""
        added = self._events.event(
            "response.output_item.added", output_index=self._index, item=self._item
        )
        return added + self._events.event(
            "response.content_part.added", **self._place, part=text_part("")
        )

    def delta(self, text: str) -> bytes:
        """A text delta."""
        self._texts.append(text)
        number = b"%d" % self._number()
        return _TEXT_DELTA + number + self._middle + self._encode(text) + b"}\n\n"

    def rich_delta(self, text: str, logprobs: list[dict[str, Any]]) -> bytes:
        """A text delta with log probabilities."""
        self._texts.append(text)
        self._logprobs += logprobs
        return self._events.event(
            "response.output_text.delta", **self._place, logprobs=logprobs, delta=text
        )

    @override
    def end(self, status: str) -> tuple[bytes, dict[str, Any]]:
        """The whole text, the whole part, the whole item."""
        text = "".join(self._texts)
        item = self._output_items.message(self._index, text, status=status, logprobs=self._logprobs)
        told = (
            self._events.event(
                "response.output_text.done", **self._place, text=text, logprobs=self._logprobs
            )
            + self._events.event(
                "response.content_part.done", **self._place, part=text_part(text, self._logprobs)
            )
            + self._events.event("response.output_item.done", output_index=self._index, item=item)
        )
        return told, item


class OpenReasoning(OpenItem):
    """A reasoning item: one part of text, or of summary."""

    def __init__(
        self, events: NumberedEvents, items: OutputItems, index: int, *, summarises: bool
    ) -> None:
        self._events = events
        self._output_items = items
        self._index = index
        self._item = items.reasoning(index, None, status="in_progress")
        self._part = summary_part if summarises else reasoning_part
        self._place: dict[str, Any] = {"item_id": self._item["id"], "output_index": index}
        self._place["summary_index" if summarises else "content_index"] = 0
        self._parts = "response.reasoning_summary_part" if summarises else "response.content_part"
        self._deltas = (
            "response.reasoning_summary_text" if summarises else "response.reasoning_text"
        )
        self._texts: list[str] = []

    @override
    def begin(self) -> bytes:
        """The item, then its part."""
        added = self._events.event(
            "response.output_item.added", output_index=self._index, item=self._item
        )
        return added + self._events.event(
            self._parts + ".added", **self._place, part=self._part("")
        )

    def delta(self, text: str) -> bytes:
        """A piece of the thought."""
        self._texts.append(text)
        return self._events.event(self._deltas + ".delta", **self._place, delta=text)

    @override
    def end(self, status: str) -> tuple[bytes, dict[str, Any]]:
        """The whole text, the whole part, the whole item."""
        text = "".join(self._texts)
        item = self._output_items.reasoning(self._index, text, status=status)
        told = (
            self._events.event(self._deltas + ".done", **self._place, text=text)
            + self._events.event(self._parts + ".done", **self._place, part=self._part(text))
            + self._events.event("response.output_item.done", output_index=self._index, item=item)
        )
        return told, item


class OpenCall(OpenItem):
    """A call. A custom tool's text is part of its arguments, and is sent when they are complete."""

    def __init__(
        self, events: NumberedEvents, items: OutputItems, index: int, call_id: str, name: str
    ) -> None:
        self._events = events
        self._output_items = items
        self._index = index
        self._call = (call_id, name)
        self._is_custom = items.is_custom(name)
        self._item = items.call(index, call_id, name, "", status="in_progress")
        self._place = {"item_id": self._item["id"], "output_index": index}
        self._pieces: list[str] = []

    @override
    def begin(self) -> bytes:
        """The item."""
        return self._events.event(
            "response.output_item.added", output_index=self._index, item=self._item
        )

    def delta(self, arguments: str) -> bytes:
        """A piece of the arguments."""
        if not arguments:
            return b""
        self._pieces.append(arguments)
        if self._is_custom:
            return b""
        return self._events.event(
            "response.function_call_arguments.delta", **self._place, delta=arguments
        )

    @override
    def end(self, status: str) -> tuple[bytes, dict[str, Any]]:
        """The whole arguments, the whole item."""
        arguments = "".join(self._pieces)
        item = self._output_items.call(self._index, *self._call, arguments, status=status)
        told = self._custom(arguments) if self._is_custom else self._function(arguments)
        return (
            told
            + self._events.event("response.output_item.done", output_index=self._index, item=item),
            item,
        )

    def _function(self, arguments: str) -> bytes:
        return self._events.event(
            "response.function_call_arguments.done",
            **self._place,
            name=self._call[1],
            arguments=arguments,
        )

    def _custom(self, arguments: str) -> bytes:
        text = custom_input(arguments)
        return self._events.event(
            "response.custom_tool_call_input.delta", **self._place, delta=text
        ) + self._events.event("response.custom_tool_call_input.done", **self._place, input=text)
