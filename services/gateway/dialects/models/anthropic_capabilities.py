"""What a model can do, in the words of the Anthropic API.

Source: Anthropic API reference, models; the keys that its SDKs of November 2026 know.
"""

from __future__ import annotations

from typing import Any

from cortex.v1 import model_pb2
from services.gateway.dialects.lookup import ListedModel


def capabilities(one: ListedModel) -> dict[str, Any] | None:
    """`capabilities` of a model; None where no instance of it is loaded, so that nobody knows."""
    if not one.is_loaded:
        return None
    answers = model_pb2.CAPABILITY_CHAT in one.capabilities
    thinks = model_pb2.CAPABILITY_REASONING in one.capabilities
    return {
        # The gateway's own limits, whatever the model.
        "batch": _is(supported=False),
        "citations": _is(supported=False),
        "code_execution": _is(supported=False),
        "context_management": _all(
            "clear_thinking_20251015",
            "clear_tool_uses_20250919",
            "compact_20260112",
            supported=False,
        ),
        "pdf_input": _is(supported=False),
        "server_tools": _all("code_execution", "web_search", supported=False),
        "structured_outputs": _is(supported=answers),
        "image_input": _is(supported=model_pb2.CAPABILITY_VISION in one.capabilities),
        "effort": _all("low", "medium", "high", "xhigh", "max", supported=thinks),
        "thinking": _is(supported=thinks) | {"types": _thinking(answers=answers, thinks=thinks)},
    }


def _thinking(*, answers: bool, thinks: bool) -> dict[str, Any]:
    return {
        "adaptive": _is(supported=thinks),
        "enabled": _is(supported=thinks),
        "between_tools": _is(supported=thinks),
        "disabled": _is(supported=answers),
    }


def _is(*, supported: bool) -> dict[str, Any]:
    return {"supported": supported}


def _all(*names: str, supported: bool) -> dict[str, Any]:
    """A capability with its parts, all of them alike."""
    return _is(supported=supported) | {name: _is(supported=supported) for name in names}
