"""Messages of the Agent Client Protocol, held to its own schema in both directions."""

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

_DEFINITIONS = json.loads((Path(__file__).parent / "schema.json").read_text())["$defs"]
_KINDS = ("Request", "Response", "Notification")
_NAMES = {
    (definition["x-method"], kind): name
    for name, definition in _DEFINITIONS.items()
    for kind in _KINDS
    if "x-method" in definition and name.endswith(kind)
}


@functools.cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """Of a definition, with no field beside those that it has."""
    reference = {"$ref": f"#/$defs/{name}", "unevaluatedProperties": False}
    return jsonschema.Draft202012Validator({**reference, "$defs": _DEFINITIONS})


class Messages:
    """Watches one connection from the client's side.

    Attributes:
        seen: `(method, kind)` of every message that the schema has.
        problems: what is wrong with which message.
    """

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()
        self.problems: list[str] = []
        self._asked: dict[tuple[bool, Any], str] = {}

    def observe(self, event: Any) -> None:
        """Takes a message as the SDK's connection tells it to observers."""
        self.add(event.message, is_agents=event.direction.value == "incoming")

    def add(self, message: dict[str, Any], *, is_agents: bool) -> None:
        """Takes the next message of the agent or of the client."""
        if message.get("jsonrpc") != "2.0":
            self.problems.append(f"no JSON-RPC: {message}")
        if "method" in message:
            method = message["method"]
            if "id" in message:
                self._asked[is_agents, message["id"]] = method
            kind = "Request" if "id" in message else "Notification"
            self._check(method, kind, message.get("params", {}), is_agents=is_agents)
        elif "error" in message:
            self._asked.pop((not is_agents, message["id"]), None)
            self._validate("Error", message["error"])
        else:
            method = self._asked.pop((not is_agents, message["id"]))
            self._check(method, "Response", message["result"], is_agents=is_agents)

    def _check(self, method: str, kind: str, value: Any, *, is_agents: bool) -> None:
        name = _NAMES.get((method, kind))
        if name is None:
            if is_agents and kind != "Response":  # an answer is as new or old as its question
                self.problems.append(f"the schema has no {kind} of {method}")
            return
        self.seen.add((method, kind))
        self._validate(name, value)
        if name == "SessionNotification":
            self._validate("SessionUpdate", value.get("update"))

    def _validate(self, name: str, value: Any) -> None:
        for error in validator(name).iter_errors(value):
            self.problems.append(f"{name} at {error.json_path}: {error.message[:300]}")
