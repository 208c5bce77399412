"""Fields of ours that the document does not name; its schemas allow any. There are no others."""

from __future__ import annotations

from typing import Any, Final

# Behind the kind of object the dotted paths of the fields; `*` stands for every index, `[type]` for
# objects of that type only.
EXTENSIONS: Final[dict[str, tuple[str, ...]]] = {
    # What models think, as every server of open models tells it.
    "/chat/completions": (
        "choices.*.message.reasoning_content",
        "choices.*.delta.reasoning_content",
    ),
    "/responses": (
        # Required by the Open Responses specification; the real API sends them as well.
        "presence_penalty",
        "frequency_penalty",
        "store",
        # Required of the same item where it is listed again as input.
        "output.[custom_tool_call].status",
    ),
    "event": (
        "item.[custom_tool_call].status",
        # Required by the Open Responses specification.
        "logprobs.*.bytes",
        "logprobs.*.top_logprobs.*.bytes",
    ),
    # The window, so that agents compact in time, and where the model is.
    "/models": (
        "status", "loaded", "capabilities", "locations", "feasible_on", "aliases", "description",
        "limit", "max_model_len", "context_length", "max_input_tokens", "max_output_tokens", "cost",
    ),
    # For machines: numbers of tokens, names, limits.
    "error": ("error.facts",),
}  # fmt: skip


def without(instance: Any, paths: tuple[str, ...]) -> Any:
    """A copy of a body without the fields at these paths."""
    for path in paths:
        instance = _removed(instance, path.split("."))
    return instance


def _removed(value: Any, steps: list[str]) -> Any:
    head, rest = steps[0], steps[1:]
    if isinstance(value, list):
        return [_removed(each, rest if head == "*" else steps) for each in value]
    if not isinstance(value, dict):
        return value
    if head.startswith("["):
        return _removed(value, rest) if value.get("type") == head.strip("[]") else value
    if head not in value:
        return value
    if not rest:
        return {key: each for key, each in value.items() if key != head}
    return value | {head: _removed(value[head], rest)}
