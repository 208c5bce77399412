from services.agent.endpoints import responses
from tests.unit.agent.endpoints.conversation import ASK


def test_responses_requests():
    body = responses.request(ASK)

    assert ["message", "message", "function_call", "function_call", "function_call_output",
            "function_call_output"] == [item["type"] for item in body["input"]]  # fmt: skip
    assert body["store"] is False
    assert ("system", 99) == (body["instructions"], body["max_output_tokens"])
