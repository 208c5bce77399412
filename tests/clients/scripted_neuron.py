"""A neuron that says what the question tells it to, attached to a real registry.

A 135M model cannot be trusted to call a tool when it should, or to think, or to stall. This one
reads orders in the last user turn that holds one, so that any client can be driven by its prompt:

    @call NAME {"json": "arguments"}   calls a tool; told its result, says it
    @both NAME OTHER                   thinks, speaks, and calls two tools at once
    @think TEXT                        thinks, then answers
    @stall                             speaks for a minute, slowly (to be cancelled)
    @break                             loses its engine behind three words
    @cut                               runs into the token limit
    @write FILE                        a file as aider's models write it, whole
    @cancelled                         says how many of its generations were cancelled so far
    @active                            says how many run beside this one

Without an order it calls a tool where one is required, or where the weather is asked for, and else
says hello. Arguments nobody gave are made from the tool's schema.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import registry_service_pb2 as registry
from cortex.v1.registry_service_pb2_grpc import RegistryServiceStub
from services.backplane.rpc.channels import open_channel
from tests.doubles.scripted_neuron import Event, Script, ScriptedNeuron, reasoning, text, tool_call

MODEL: Final = "scripted"
HELLO: Final = "Hello from the scripted neuron."
_ORDER: Final = re.compile(
    r"@(call|both|think|stall|break|cut|write|cancelled|active)\b[ ]*([^\n]*)"
)
_CALL: Final = re.compile(r"([\w.-]+)\s*(\{.*\})?")
_REPORT_SECONDS: Final = 1.0
_CONTEXT: Final = 131_072


class ObedientNeuron(ScriptedNeuron):
    """Obeys the orders in its prompts."""

    def __init__(self) -> None:
        super().__init__("scripted", [MODEL])
        self._incarnation = uuid.uuid4().hex

    async def _play(self, request: generation.GenerateRequest) -> AsyncIterator[Event]:
        # read at the first step of the generator, before anything else can run
        self.scripts = [script_of(request, len(self.cancelled), self.active)]
        async for event in super()._play(request):
            yield event

    def report(self) -> registry.Neuron:
        """This neuron with what the gateway reads of a model."""
        described = self.described()
        described.identity.incarnation_id = self._incarnation
        for instance in described.report.instances:
            instance.max_context_tokens = _CONTEXT
            instance.max_active_requests = 64
            instance.capabilities.extend(
                (
                    model_pb2.CAPABILITY_CHAT,
                    model_pb2.CAPABILITY_TOOLS,
                    model_pb2.CAPABILITY_REASONING,
                )
            )
        described.report.stored_models.add(
            model=MODEL, source="path:/scripted", max_context_tokens=_CONTEXT
        )
        return described

    async def CountTokens(
        self, request: neuron.CountTokensRequest, context: object
    ) -> neuron.CountTokensResponse:
        """About as a tokenizer would, and without the small window of the tests in here."""
        words = " ".join(_texts(request.chat.messages)) if request.HasField("chat") else ""
        tokens = max(1, len(words) // 4)
        return neuron.CountTokensResponse(tokens=tokens, max_context_tokens=_CONTEXT)

    async def attach(self, address: str) -> None:
        """Is a member of a fleet until the registry goes away."""
        channel = open_channel(address)
        try:
            call: Any = RegistryServiceStub(channel).Attach(self._reports())
            said = False
            async for _ in call:
                if not said:
                    print("attached", flush=True)
                    said = True
        finally:
            await channel.close()

    async def _reports(self) -> AsyncIterator[registry.AttachRequest]:
        yield registry.AttachRequest(hello=self.report().identity)
        while True:
            yield registry.AttachRequest(report=self.report().report)
            await asyncio.sleep(_REPORT_SECONDS)


def script_of(request: generation.GenerateRequest, cancelled: int, active: int) -> Script:
    """What is to be said to this prompt."""
    messages = list(request.chat.messages)
    order, argument, results = _last_order(messages)
    match order:
        case "think":
            return Script([reasoning(argument), reasoning(" Done."), *_words(HELLO)])
        case "stall":
            return Script([text(f"word{n} ") for n in range(600)], gap=0.1)
        case "break":
            return Script(_words("one two three four"), fail_after=3)
        case "cut":
            return Script(_words(HELLO), reason=generation.FINISH_REASON_MAX_TOKENS)
        case "cancelled" | "active":
            return Script([text(str(cancelled if order == "cancelled" else active))])
        case "write":
            return Script(_words(f"{argument}\n```\nhello\n```\n"))
        case "call" if not results:
            # some clients quote the prompt, and escape what they quote
            named = _CALL.match(argument.replace('\\"', '"'))
            assert named is not None, argument
            return _calls(named[1], named[2] or _made_up(request, named[1]))
        case "both" if not results:
            return _two_calls(request, argument.split())
    if results:
        return Script(_words(f"The tool said: {results[-1]}"))
    return _unordered(request, messages)


def _unordered(
    request: generation.GenerateRequest, messages: Sequence[conversation.Message]
) -> Script:
    choice = request.chat.tool_choice
    names = [tool.name for tool in request.chat.tools]
    if names and choice.WhichOneof("mode") == "named":
        return _calls(choice.named, _made_up(request, choice.named))
    asked = " ".join(_texts(messages[-1:])).lower()
    if names and (choice.HasField("required") or "weather" in asked):
        return _calls(names[0], _made_up(request, names[0]))
    constraint = request.constraint.WhichOneof("kind")
    if constraint == "json_schema":
        return Script([text(json.dumps(sample(json.loads(request.constraint.json_schema))))])
    if constraint == "json_object":
        return Script([text('{"hello": "scripted"}')])
    # slowly enough that its words travel one by one
    return Script(_words(HELLO), gap=0.01)


def _last_order(messages: Sequence[conversation.Message]) -> tuple[str, str, list[str]]:
    """The last order, what stands behind it, and the tool results that came since."""
    results: list[str] = []
    for message in reversed(messages):
        found = [
            " ".join(part.text for part in each.tool_result.parts)
            for each in message.parts
            if each.HasField("tool_result")
        ]
        results[:0] = found
        if message.role == conversation.ROLE_USER and (
            orders := _ORDER.findall("\n".join(_texts([message])))
        ):
            order, argument = orders[-1]
            return order, argument.strip(), results
    return "", "", results


def _texts(messages: Sequence[conversation.Message]) -> list[str]:
    return [part.text for message in messages for part in message.parts if part.HasField("text")]


def _words(sentence: str) -> list[Event]:
    return [text(word) for word in re.findall(r"\s*\S+", sentence)]


def _calls(name: str, arguments: str) -> Script:
    """A call in three pieces, as a model's tokens make it."""
    third = max(1, len(arguments) // 3)
    pieces = [arguments[:third], arguments[third : 2 * third], arguments[2 * third :]]
    events = [tool_call(0, pieces[0], call_id="call_scripted1", name=name)]
    events += [tool_call(0, piece) for piece in pieces[1:] if piece]
    return Script(events, reason=generation.FINISH_REASON_TOOL_CALLS)


def _two_calls(request: generation.GenerateRequest, names: Sequence[str]) -> Script:
    events = [reasoning("Both are needed."), *_words("One moment.")]
    for index, name in enumerate(names):
        arguments = _made_up(request, name)
        events.append(tool_call(index, "", call_id=f"call_scripted{index}", name=name))
        events.append(tool_call(index, arguments))
    return Script(events, reason=generation.FINISH_REASON_TOOL_CALLS)


def _made_up(request: generation.GenerateRequest, name: str) -> str:
    for tool in request.chat.tools:
        if tool.name == name:
            return json.dumps(sample(json.loads(tool.parameters_schema_json or "{}")))
    return "{}"


def sample(schema: Any, root: Any = None) -> Any:
    """The plainest value that a JSON Schema allows, for the schemas that clients send."""
    root = schema if root is None else root
    if "$ref" in schema:
        return sample(_resolve(root, schema["$ref"]), root)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return sample(schema[key][0], root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        required = schema.get("required", ())
        return {
            k: sample(v, root) for k, v in schema.get("properties", {}).items() if k in required
        }
    if kind == "array":
        return [sample(schema["items"], root)] if schema.get("minItems") else []
    return {"integer": 42, "number": 4.2, "boolean": True, "null": None}.get(kind, "scripted")


def _resolve(root: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        root = root[step]
    return root


async def main(registry_address: str) -> None:
    """Serves until the registry goes away."""
    scripted = ObedientNeuron()
    await scripted.start()
    try:
        await scripted.attach(registry_address)
    finally:
        await scripted.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
