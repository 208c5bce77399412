"""Whole responses as JSON, stored where the client wants them to be found again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from services.gateway.dialects.common.json_body import encode as to_json
from services.gateway.dialects.dialect import Collected, DecodedRequest, Head
from services.gateway.dialects.openai_responses.decode import ResponseDetail
from services.gateway.dialects.openai_responses.output import OutputItems
from services.gateway.dialects.openai_responses.resource import Resource, is_cut
from services.gateway.dialects.openai_responses.store.responses import Responses, StoredResponse

__all__ = ["body", "keep", "to_json"]


def body(
    decoded: DecodedRequest, head: Head, choices: Sequence[Collected], store: Responses
) -> bytes:
    """The body of a whole response, which is also stored (see `keep`)."""
    (one,) = choices
    output = OutputItems(decoded.detail).collected(one, cut=is_cut(one.finished))
    response = Resource(decoded, head).finished(output, one.finished, completed_at=int(time.time()))
    return keep(decoded.detail, response, store)


def keep(detail: ResponseDetail, response: dict[str, Any], store: Responses) -> bytes:
    """Encodes a response, and stores it where the client wants it to be found again."""
    told = to_json(response)
    if detail.stores or store.keeps_unstored:
        store.put(
            StoredResponse(
                response_id=detail.response_id,
                previous_id=detail.wire.previous_response_id,
                owner=detail.owner,
                response=told,
                input_items=to_json(detail.input_items),
            ),
            stored=detail.stores,
        )
    return told
