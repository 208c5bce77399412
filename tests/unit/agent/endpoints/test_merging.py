"""What every dialect has to say, in its own words."""

import pytest

from services.agent.core.history import (
    AssistantTurn,
    ImagePart,
    ResultsTurn,
    TextPart,
    ToolCall,
    ToolResult,
    Turn,
    UserTurn,
    without_pictures,
)
from services.agent.core.model_options import EFFORTS, ModelOptions
from services.agent.endpoints import chat, messages, responses
from services.agent.endpoints.endpoint import ModelRequest
from tests.unit.agent.endpoints.conversation import ASK, HISTORY


def test_nothing_is_said_about_thinking_and_sampling_unless_it_is_chosen():
    for body in (chat.request(ASK), responses.request(ASK), messages.request(ASK)):
        assert not {"temperature", "top_p", "reasoning", "reasoning_effort"} & body.keys()
        assert "extra_body" not in body


@pytest.mark.parametrize("effort", EFFORTS)
def test_thinking_and_sampling_are_said_as_each_dialect_says_them(effort: str):
    options = ModelOptions(effort, temperature=0.0, top_p=0.9)
    ask = ModelRequest("m", "s", HISTORY, options=options)
    sampling = {"temperature": 0.0, "top_p": 0.9}
    in_openai = "xhigh" if effort == "max" else effort

    assert chat.request(ask).items() >= {"reasoning_effort": in_openai, **sampling}.items()
    body = responses.request(ask)
    assert ({"effort": in_openai}, 0.0, 0.9) == (
        body["reasoning"], body["temperature"], body["top_p"]
    )  # fmt: skip
    more = messages.request(ask)["extra_body"]
    thinking = {"type": "disabled" if effort == "none" else "adaptive"}
    assert (thinking, 0.0, 0.9) == (more["thinking"], more["temperature"], more["top_p"])
    assert (effort != "none") == (more.get("output_config") == {"effort": effort})


SEEN: list[Turn] = [
    UserTurn((TextPart("look"),)),
    AssistantTurn(calls=(ToolCall("c1", "mcp__a__shot", {}), ToolCall("c2", "bash", {}))),
    ResultsTurn(
        (
            ToolResult("c1", "mcp__a__shot", "", pictures=(ImagePart("aGk=", "image/png"),)),
            ToolResult("c2", "bash", "a.txt"),
        )
    ),
]


def test_pictures_of_tools_are_sent_as_each_dialect_sends_them():
    ask = ModelRequest("m", "s", SEEN)

    *_, shot, bash, picture = chat.request(ask)["messages"]
    assert ["tool", "tool", "user"] == [shot["role"], bash["role"], picture["role"]]
    assert "mcp__a__shot" in picture["content"][0]["text"]
    assert "data:image/png;base64,aGk=" == picture["content"][1]["image_url"]["url"]
    shot, bash = responses.request(ask)["input"][-2:]
    assert ["input_text", "input_image"] == [each["type"] for each in shot["output"]]
    assert "a.txt" == bash["output"]
    shot, bash = messages.request(ask)["messages"][-1]["content"]
    assert ["image"] == [each["type"] for each in shot["content"]]
    assert "a.txt" == bash["content"]


def test_a_model_without_eyes_is_told_of_pictures():
    results = without_pictures(SEEN)[-1]

    assert isinstance(results, ResultsTurn)
    assert () == results.results[0].pictures
    assert "a picture, left out" in results.results[0].text
