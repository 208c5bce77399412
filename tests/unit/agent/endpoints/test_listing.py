import pytest

from services.agent.endpoints.endpoint import EndpointModel
from services.agent.endpoints.listing import model_info


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        ({}, None),
        ({"max_model_len": 4096}, 4096),
        ({"max_input_tokens": 4096}, 4096),
        ({"limit": {"context": 8192}}, 8192),
        ({"meta": {"n_ctx": 2048}}, 2048),
        ({"max_model_len": 0, "context_length": 5}, 5),
        ({"max_model_len": "many", "limit": None}, None),
    ],
)
def test_windows_as_different_servers_list_them(fields: dict[str, object], window: int | None):
    assert EndpointModel("m", window) == model_info("m", fields)


@pytest.mark.parametrize(
    ("fields", "can_chat", "can_see"),
    [
        ({}, True, None),
        ({"capabilities": ["chat", "completion", "tools"]}, True, False),
        ({"capabilities": ["chat", "vision"]}, True, True),
        ({"capabilities": ["embedding"]}, False, None),
        ({"capabilities": ["completion", "multimodal"]}, True, True),
        ({"capabilities": ["completion"]}, True, None),
        ({"capabilities": {"completion_chat": False, "vision": False}}, False, False),
        ({"type": "embeddings"}, False, None),
        ({"capabilities": {"image_input": {"supported": True}}}, True, True),
        ({"capabilities": {"image_input": {"supported": False}}}, True, False),
        ({"architecture": {"input_modalities": ["text", "image"]}}, True, True),
        ({"architecture": {"input_modalities": ["text"]}}, True, False),
        ({"capabilities": "odd", "architecture": 7}, True, None),
    ],
)
def test_what_a_model_can_do_as_different_servers_list_it(
    fields: dict[str, object], can_chat: bool, can_see: bool | None
):
    found = model_info("m", fields)

    assert (can_chat, can_see) == (found.can_chat, found.can_see)


@pytest.mark.parametrize(
    ("fields", "can_call"),
    [
        ({}, None),
        ({"capabilities": ["chat", "completion", "tools"]}, True),
        ({"capabilities": ["chat", "completion"]}, False),
        ({"capabilities": ["completion"]}, None),
        ({"capabilities": ["tool_use"]}, True),
        ({"capabilities": {"function_calling": False}}, False),
        ({"capabilities": {"image_input": {"supported": True}}}, None),
        ({"supported_parameters": ["tools", "top_p"]}, True),
        ({"supported_parameters": ["top_p"]}, False),
    ],
)
def test_whether_a_model_takes_tools_as_different_servers_list_it(
    fields: dict[str, object], can_call: bool | None
):
    assert can_call is model_info("m", fields).can_call
