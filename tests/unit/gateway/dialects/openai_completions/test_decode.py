"""Legacy completion bodies."""

from __future__ import annotations

from typing import Any

import pytest

from services.backplane.errors import FleetError, Reason
from tests.unit.gateway.dialects import decoding


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("hi", ["hi"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["a", [5]], ["a", [5]]),
    ],
)
def test_prompts_of_every_shape(prompt: Any, wanted: list[Any]) -> None:
    _, decoded = decoding.completion(prompt=prompt)

    assert wanted == [
        one.text if one.WhichOneof("prompt") == "text" else list(one.token_ids.ids)
        for one in decoded.requests
    ]


def test_a_completion_has_the_apis_defaults() -> None:
    _, decoded = decoding.completion(echo=True, logprobs=2)
    (request,) = decoded.requests

    assert (16, True, 2) == (request.stop.max_tokens, request.echo_prompt, request.top_logprobs)


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"suffix": "x"}, "suffix", Reason.UNSUPPORTED_FIELD),
        ({"best_of": 3}, "best_of", Reason.UNSUPPORTED_FIELD),
        ({"prompt": []}, "prompt", Reason.BAD_REQUEST),
        ({"prompt": [1, "a"]}, "prompt.0", Reason.BAD_REQUEST),
        ({"prompt": [[]]}, "prompt.0", Reason.BAD_REQUEST),
        ({"prompt": [True]}, "prompt.0", Reason.BAD_REQUEST),
        ({"max_tokens": 0}, "max_tokens", Reason.BAD_REQUEST),
        ({"logprobs": True}, "logprobs", Reason.BAD_REQUEST),
        ({"messages": []}, "messages", Reason.BAD_REQUEST),
    ],
)
def test_a_bad_completion_is_refused(fields: dict[str, Any], field: str, reason: Reason) -> None:
    with pytest.raises(FleetError) as raised:
        decoding.completion(**fields)

    assert (field, reason) == (raised.value.field, raised.value.reason)


@pytest.mark.parametrize(
    ("prompt", "logprobs", "asked"),
    [
        ("hi", None, (False, None)),
        ("hi", 0, (True, 0)),
        ([1, 2], None, (True, 0)),
        ([1, 2], 3, (True, 3)),
    ],
)
def test_an_echo_asks_for_log_probabilities_where_the_text_is_not_known(
    prompt: Any, logprobs: int | None, asked: tuple[bool, int | None]
) -> None:
    _, decoded = decoding.completion(prompt=prompt, echo=True, logprobs=logprobs)
    (request,) = decoded.requests

    found = request.top_logprobs if request.HasField("top_logprobs") else None
    assert asked == (request.echo_prompt, found)
