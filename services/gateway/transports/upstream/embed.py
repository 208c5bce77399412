"""Texts to embed as OpenAI's embeddings, and their answers as vectors.

Source: OpenAI API reference, embeddings/create; vLLM's and Cortex's extra fields.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import Any, Final

import msgspec

from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.transports.upstream.chunks import bounded_count
from services.gateway.transports.upstream.errors import Words
from services.gateway.transports.upstream.settings import UpstreamSettings
from services.gateway.transports.upstream.sse import BrokenStreamError

PATH: Final = "/embeddings"
MOST_BYTES: Final = 64 << 20
"""Of an answer: a thousand vectors of 4096 numbers."""
_MOST_NUMBERS: Final = 1 << 16
_MOST_SINGLE: Final = 3.4e38


class _Vector(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Vector] | None = None
    usage: _Usage | None = None
    error: Any = None


_READER: Final = msgspec.json.Decoder(_Answer)


def encode(request: neuron.EmbedRequest, upstream: UpstreamSettings, *, model: str) -> bytes:
    """What is posted.

    Args:
        request: the texts.
        upstream: which fields it reads. One that has none for `truncate` refuses what is too long.
        model: as it calls it.
    """
    inputs = [
        list(one.token_ids.ids) if one.HasField("token_ids") else one.text for one in request.inputs
    ]
    body: dict[str, Any] = {"model": model, "input": inputs, "encoding_format": "float"}
    if request.HasField("dimensions"):
        body["dimensions"] = request.dimensions
    if request.truncate and upstream.extra_fields == "cortex":
        body["truncate"] = True
    elif request.truncate and upstream.extra_fields == "vllm":
        body["truncate_prompt_tokens"] = -1
    return msgspec.json.encode(body)


def decode(
    body: bytes, request: neuron.EmbedRequest, words: Words, *, tokens: int
) -> neuron.EmbedResponse:
    """The vectors of an answer, in the order of the texts.

    Args:
        body: of the answer.
        request: what was asked for. Vectors that are longer are cut and normalised again.
        words: words errors.
        tokens: of the texts, estimated: told where the server does not count.

    Raises:
        FleetError: the server tells of an error.
        BrokenStreamError: there is not one vector a text, or they cannot be.
    """
    try:
        answer = _READER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenStreamError(f"its answer has no embeddings ({error})") from error
    if answer.error is not None:
        raise words.told(answer.error)
    found = answer.data or []
    if len(found) != len(request.inputs):
        raise BrokenStreamError(f"it answers {len(request.inputs)} texts by {len(found)} vectors")
    if all(one.index is not None for one in found):
        found.sort(key=lambda one: one.index or 0)
    vectors = [_numbers(one.embedding) for one in found]
    size = len(vectors[0]) if vectors else 0
    if any(len(one) != size for one in vectors):
        raise BrokenStreamError("its vectors differ in length")
    if request.HasField("dimensions") and request.dimensions < size:
        vectors = [_shortened(one, request.dimensions) for one in vectors]
    elif request.HasField("dimensions") and request.dimensions > size:
        raise BrokenStreamError(f"its vectors have {size} numbers, not {request.dimensions}")
    told = answer.usage.prompt_tokens if answer.usage else None
    return neuron.EmbedResponse(
        embeddings=[neuron.Embedding(values=one) for one in vectors],
        prompt_tokens=bounded_count(told) or tokens,
    )


def _numbers(told: list[float] | str) -> list[float]:
    """One vector; some servers send it packed though numbers were asked for.

    Raises:
        BrokenStreamError: it is none.
    """
    try:
        if isinstance(told, str):
            packed = base64.b64decode(told, validate=True)
            told = list(struct.unpack(f"<{len(packed) // 4}f", packed))
    except (binascii.Error, struct.error, ValueError) as error:
        raise BrokenStreamError(f"a vector is neither numbers nor base64 ({error})") from error
    if not 0 < len(told) <= _MOST_NUMBERS or not all(map(_is_single, told)):
        raise BrokenStreamError("a vector is empty, too long, or not of finite numbers")
    return told


def _is_single(number: float) -> bool:
    return math.isfinite(number) and abs(number) <= _MOST_SINGLE


def _shortened(numbers: list[float], size: int) -> list[float]:
    kept = numbers[:size]
    length = math.hypot(*kept)
    return [one / length for one in kept] if length else kept
