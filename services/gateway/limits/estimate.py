"""What a request may cost, before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron

BYTES_PER_TOKEN: Final = 3
"""Of a prompt in UTF-8. English has four, code three, and a Chinese character of three bytes is
about one token. No token has less than one, so that a prompt has at most three times the tokens
that are estimated."""

TEMPLATE_TOKENS: Final = 32
"""What a chat template adds by itself."""

UNSTATED_OUTPUT_TOKENS: Final = 1024
"""Reserved for an answer of which the client does not say how long it may be."""

_IMAGE_TOKENS: Final = 1024
# Smaller requests have no picture that matters.
_LARGE_BYTES: Final = 16 << 10


def prompt_tokens(request: generation.GenerateRequest) -> int:
    """Estimated tokens of a prompt."""
    if request.HasField("token_ids"):
        return len(request.token_ids.ids)
    size = request.ByteSize()
    if size <= _LARGE_BYTES or not request.HasField("chat"):
        return size // BYTES_PER_TOKEN + TEMPLATE_TOKENS
    pictures = [
        part.ByteSize()
        for message in request.chat.messages
        for outer in message.parts
        for part in (*outer.tool_result.parts, outer)
        if part.HasField("image")
    ]
    texts = size - sum(pictures)
    return texts // BYTES_PER_TOKEN + TEMPLATE_TOKENS + len(pictures) * _IMAGE_TOKENS


def embedding_tokens(inputs: Sequence[neuron.EmbedInput]) -> int:
    """Estimated tokens of texts to embed."""
    return sum(
        len(one.token_ids.ids) or len(one.text.encode()) // BYTES_PER_TOKEN + 2 for one in inputs
    )
