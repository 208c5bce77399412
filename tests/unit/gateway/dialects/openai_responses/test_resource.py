"""The response object."""

from __future__ import annotations

from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.openai_responses.bodies import TOOL, told
from tests.unit.gateway.dialects.whole_answers import whole_answer


def test_the_whole_object_is_told(store: ResponsesStore) -> None:
    """Every field that the Open Responses compliance suite checks."""
    found = told(store, tools=[TOOL], metadata={"a": "b"}, temperature=0.5)

    assert "completed" == found["status"]
    assert isinstance(found["completed_at"], int)
    for name in (
        "max_tool_calls", "max_output_tokens", "safety_identifier", "prompt_cache_key", "error",
        "incomplete_details", "instructions", "previous_response_id",
    ):  # fmt: skip
        assert found[name] is None, name
    assert (0.5, 1, 0, 0, 0) == (
        found["temperature"],
        found["top_p"],
        found["presence_penalty"],
        found["frequency_penalty"],
        found["top_logprobs"],
    )
    assert [
        {
            "type": "function",
            "name": "f",
            "description": None,
            "parameters": {"type": "object"},
            "strict": False,
        }
    ] == found["tools"]
    assert ("auto", "disabled", "default", True, False, True) == (
        found["tool_choice"],
        found["truncation"],
        found["service_tier"],
        found["store"],
        found["background"],
        found["parallel_tool_calls"],
    )
    assert 0 == found["usage"]["input_tokens_details"]["cache_write_tokens"]


def test_the_user_is_repeated_or_left_out(store: ResponsesStore) -> None:
    assert "user" not in whole_answer(decoding.responses(store))
    assert whole_answer(decoding.responses(store, user="u"))["user"] == "u"
