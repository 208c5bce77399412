"""Turns come into a request as the contract has them."""

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.common import turns


def test_every_kind_of_part_is_written_in_its_place():
    chat = conversation.Chat()
    turns.write(
        [
            turns.Turn(
                conversation.ROLE_USER, [turns.Text("see"), turns.Picture(b"x", "image/png")]
            ),
            turns.Turn(
                conversation.ROLE_ASSISTANT,
                [turns.Reasoning("so", "s"), turns.Text(""), turns.Call("c1", "look", "")],
                "ann",
            ),
            turns.result("c1", [turns.Text("found")], names={"c1": "look"}, is_error=True),
        ],
        chat,
    )

    part = conversation.Part
    result = conversation.ToolResult(
        call_id="c1", parts=[part(text="found")], is_error=True, name="look"
    )
    expected = conversation.Chat(
        messages=[
            conversation.Message(
                role=conversation.ROLE_USER,
                parts=[
                    part(text="see"),
                    part(image=conversation.Image(data=b"x", mime_type="image/png")),
                ],
            ),
            conversation.Message(
                role=conversation.ROLE_ASSISTANT,
                name="ann",
                parts=[
                    part(reasoning=conversation.ReasoningPart(text="so", signature="s")),
                    part(text=""),
                    part(
                        tool_call=conversation.ToolCall(
                            call_id="c1", name="look", arguments_json="{}"
                        )
                    ),
                ],
            ),
            conversation.Message(role=conversation.ROLE_TOOL, parts=[part(tool_result=result)]),
        ]
    )
    assert expected == chat


def test_what_is_empty_is_there_all_the_same():
    chat = conversation.Chat()
    turns.write(
        [
            turns.result("", [], names={}),
            turns.Turn(conversation.ROLE_ASSISTANT, [turns.Reasoning("")]),
        ],
        chat,
    )

    assert ["tool_result", "reasoning"] == [
        one.parts[0].WhichOneof("kind") for one in chat.messages
    ]
