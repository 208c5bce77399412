"""The model of the sessions that clients run with `cortex acp`: it knows what it is asked."""

import re
from typing import Any

from typing_extensions import override

from services.agent.storage.summary import SYSTEM
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

PLAN_DIRECTORY = re.compile(r"no permission is needed: (.+)")


class Model(ScriptedEndpoint):
    """Answers by the last prompt, and by how far its turn has come."""

    @override
    def answer_to(self, request: dict[str, Any]) -> Answer:
        messages = request["messages"]
        if messages[0]["content"] == SYSTEM:
            return Answer(text="The greeting was changed.")
        begin = max(at for at, each in enumerate(messages) if each["role"] == "user")
        rounds = sum(each["role"] == "assistant" for each in messages[begin:])
        prompt = str(messages[begin]["content"])
        plans = PLAN_DIRECTORY.search(messages[0]["content"])
        answers = _turn(prompt, plans[1] if plans else "")
        answer = answers[min(rounds, len(answers) - 1)]
        for call in answer.calls:
            call.id = f"call_{len(self.requests)}_{call.name}"
        return answer


def _turn(prompt: str, plans: str) -> list[Answer]:
    """Returns the answers of one turn, in order."""
    if "greeting" in prompt:
        change = {"path": "greeting.txt", "old_text": "world", "new_text": "fleet"}
        return [
            Answer(text="Reading.", calls=[Call("read_file", {"path": "greeting.txt"})]),
            Answer(calls=[Call("edit_file", change)]),
            Answer(text="The greeting is changed."),
        ]
    if "farewell" in prompt:
        steps = [{"content": "Write farewell.txt", "status": "pending"}]
        written = {"path": f"{plans}/01-overview.md", "content": "1. Write farewell.txt"}
        summary = {"summary": "A file with a farewell."}
        farewell = {"path": "farewell.txt", "content": "bye\n"}
        return [
            Answer(calls=[Call("write_file", written), Call("update_plan", {"steps": steps})]),
            Answer(calls=[Call("exit_plan_mode", summary)]),
            Answer(calls=[Call("write_file", farewell)]),
            Answer(text="The farewell is written."),
        ]
    if "list" in prompt:
        return [Answer(calls=[Call("bash", {"command": "ls"})]), Answer(text="That is all.")]
    return [Answer(text="We changed the greeting.")]
