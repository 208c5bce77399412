"""Schemas of three hundred tools, and of every fragment in them: all can be forced."""

import json

import pytest

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError
from services.neuron.chat.schemas.keywords import enforceable
from services.neuron.chat.schemas.patterns import is_enforceable
from services.neuron.chat.tool_calls import formats
from services.neuron.chat.tool_calls.forced import forced_call
from tests.unit.neuron.chat.schemas.accepting import accepts, complaint
from tests.unit.neuron.chat.schemas.tool_schemas import DEFS, FRAGMENTS, tool_schema


def force(*schemas, strict=False):
    """The forced call of tools with these schemas; they are called by their numbers."""
    chat = conversation.Chat()
    for number, schema in enumerate(schemas):
        text = json.dumps(schema)
        chat.tools.add(name=f"tool_{number}", parameters_schema_json=text, strict=strict)
    chat.tool_choice.required.SetInParent()
    return forced_call(chat, formats.tools_of(chat))


def written(number, arguments):
    return json.dumps({"name": f"tool_{number}", "arguments": arguments})


@pytest.mark.parametrize("start", range(0, 300, 20))
def test_tools_as_they_are_can_be_forced_all_together(start):
    tools = [tool_schema(seed) for seed in range(start, start + 20)]

    call = force(*(schema for schema, _ in tools))

    for number, (schema, arguments) in enumerate(tools):
        assert accepts(call.schema, written(number, arguments)), (schema, arguments)


@pytest.mark.parametrize(("fragment", "value"), FRAGMENTS)
def test_a_strict_tool_is_held_to_its_whole_schema_or_refused(fragment, value):
    own = {"properties": {"a": fragment}, "required": ["a"], "$defs": DEFS}
    relaxed = force(own)
    if "additionalProperties" in str(relaxed.repairs):
        return  # nothing satisfies it, strictly
    if relaxed.repairs:
        with pytest.raises(FleetError, match="tool_0"):
            force(own, strict=True)
    else:
        assert accepts(force(own, strict=True).schema, written(0, {"a": value}))


PATTERNS = [
    "", "^$", "^a|b$", "^(a|b)$", "(^a$)|(^b$)", "a$b", "a^b", "x{2,3}", "x{,3}", "{x}", r"\{x\}",
    r"[^]]", r"[]a]", r"[a-z&&b]", r"[a[b]", r"[[:alpha:]]+", r"\d\D\w\W\s\S", r"\bx", r"x\B",
    r"(a)\1", r"(?<y>a)", r"(?P<y>a)", r"(?:a)+?", r"(?i)a", "(?#no)a", "(?>a)", r"\u0041", r"\x41",
    r"\cA", r"\p{Lu}", r"\P{L}", r"\/", r"\-", r"\_", r"\@", "a**", "*a", "(a", "a)", "[a", r"a\\",
    "a\\", r"\Aa\Z", r"\G", r"[\w.-]+", r"[\d-x]", r"[^\s\S]", ".{1,2000}", "(.*a){3}", r"^\S+$",
    r"[\u4e00-\u9fa5]", r"^(?:(?:a|b)\.)+$", r"\n\t\r\f\v", r"\0", r"[\b]", "a|", "|", "()",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_that_is_taken_compiles(pattern):
    schema = {"properties": {"a": {"type": "string", "pattern": pattern}}, "required": ["a"]}

    if is_enforceable(pattern):
        assert not complaint(json.dumps(schema))


@pytest.mark.parametrize("pattern", [r"^[a-z0-9]+(?:-[a-z0-9]+)*$", r"^\d{3}\.\d$", r"^[^/]+/x$"])
def test_usual_patterns_are_taken(pattern):
    assert is_enforceable(pattern)


@pytest.mark.parametrize("count", [float("inf"), float("nan"), 10**400, -1, 1.5, True, None])
def test_a_count_that_cannot_be_is_not_enforced(count):
    assert enforceable("maxLength", count, {}) is None
