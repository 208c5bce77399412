"""A conversation with everything in it, as every dialect has to write it."""

from services.agent.core.history import (
    AssistantTurn,
    ImagePart,
    ResultsTurn,
    TextPart,
    Thought,
    ToolCall,
    ToolResult,
    Turn,
    UserTurn,
)
from services.agent.endpoints import chat, messages
from services.agent.endpoints.endpoint import ModelRequest, ToolSpec

HISTORY: list[Turn] = [
    UserTurn((TextPart("one"),)),
    AssistantTurn(),
    UserTurn((TextPart("two"), ImagePart("aGk=", "image/png"))),
    AssistantTurn(
        "Looking.",
        thoughts=(Thought("hm", "sealed", messages.DIALECT), Thought("ha", "", chat.DIALECT)),
        calls=(ToolCall("c1", "bash", {"command": "ls"}), ToolCall("c2", "bash", None, "{")),
    ),
    ResultsTurn((ToolResult("c1", "bash", "a.txt"), ToolResult("c2", "bash", "ERROR: x", True))),
]
ASK = ModelRequest("m", "system", HISTORY, [ToolSpec("bash", "Runs", {"type": "object"})], 99)
