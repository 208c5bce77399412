import pytest

from services.agent.endpoints.endpoint import EndpointError


@pytest.mark.parametrize(
    ("error", "context", "tools"),
    [
        (EndpointError("x", status=400, code="context_length_exceeded"), True, False),
        (EndpointError("prompt is too long: 9 tokens > 8", status=400), True, False),
        (EndpointError("tools param requires --jinja", status=500), False, True),
        (EndpointError("x does not support tools", status=400), False, True),
        (EndpointError("No endpoints found that support tool use", status=404), False, True),
        (EndpointError("does not support parameters: ['tools']", status=400), False, True),
        (EndpointError("`tool calling` is not supported with this", status=400), False, True),
        (EndpointError("Unknown parameter: 'tools'.", status=400), False, True),
        (EndpointError("Unknown parameter: 'tools[0].x'.", status=400), False, False),
        (EndpointError("tool_call_id 'c1' answers no tool call", status=400), False, False),
        (EndpointError("Invalid schema for tool 'mcp__a'", status=422), False, False),
        (EndpointError("context length", status=503), False, False),
        (EndpointError("no tool here", status=401), False, False),
    ],
)
def test_refusals_are_understood(error: EndpointError, context: bool, tools: bool):
    assert (context, tools) == (error.is_context_exceeded, error.is_tools_refused)
