"""A constraint on the answer proper, where reasoning or calls may come instead or before it. Pure.

Written in llguidance's dialect of Lark, in which a control token stands by its id: as text none can
be produced.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.backplane.errors import FleetError, Reason
from services.neuron.chat.schemas.document import SchemaDocument
from services.neuron.chat.segments import ControlTokens
from services.neuron.engine_api.task import Constraint, ConstraintKind

# An escape, or a slash that would end the expression.
_SLASH: Final = re.compile(r"\\.|/|\n", re.DOTALL)
_WHITE_SPACE: Final = r"[\x20\x0A\x0D\x09]{1,20}"
# What the reader of reasoning takes away, and no more: the rest would stand before the answer.
_GAP: Final = r"gap: /\n{0,4}/"
# `rest` begins as text: models have tokens that hold the end of an opening and more.
_CALL: Final = """
call: /\\n{{0,2}}/ ({openings}) rest
rest: /(?s:.*)/ <[*]>*"""

# As many calls as one answer may hold: a model that has lost itself ends some time.
_HELD_CALL: Final = """
call: /\\n{{0,2}}/ one (blank one){{0,15}} blank
one: {opening} blank called blank {closing}
blank: /[\\x20\\x0A\\x0D\\x09]{{0,8}}/
called: %json {schema}"""


@dataclasses.dataclass(frozen=True, slots=True)
class JsonCalls:
    """Calls that a model writes as JSON between two markers.

    Attributes:
        opening: before each.
        closing: behind each.
        schema: JSON Schema of a call.
    """

    opening: str
    closing: str
    schema: str


class Spelling:
    """Writes text as terms of a Lark grammar; control tokens as token ids, which no text can be."""

    def __init__(self, control_tokens: Mapping[str, int]) -> None:
        self._ids = control_tokens
        self._tokens = ControlTokens(control_tokens)

    def __call__(self, text: str) -> str:
        """A text as a sequence of the grammar's terms."""
        return " ".join(
            f"<[{self._ids[each.text]}]>" if each.control else json.dumps(each.text)
            for each in self._tokens.split(text)
        )

    def thought(self, closing: str) -> list[str]:
        """The rule `thought`: any text up to what closes it, that included."""
        if closing in self._ids:
            return [f"thought: anything {self(closing)}", "anything: /(?s:.*)/"]
        return [f"thought[suffix={json.dumps(closing)}]: /(?s:.*)/"]


def behind(
    constraint: Constraint,
    *,
    closing: str,
    openings: Sequence[str],
    spelling: Spelling,
    held: JsonCalls | None = None,
) -> Constraint:
    """The constraint for the answer alone, where reasoning or calls may come before it.

    Args:
        constraint: of the answer.
        closing: ends reasoning that the prompt has opened; empty for none.
        openings: what a call may begin with, which may come in place of the answer.
        spelling: of this model's control tokens.
        held: what calls are held to; None for any text behind their opening.

    Raises:
        FleetError: BAD_CONSTRAINT, it is no JSON.
    """
    if not closing and not openings:
        return constraint
    either = "(answer | call)" if openings else "answer"
    lines = [f"start: {either}"]
    if closing:
        lines = [f"start: thought gap {either}", *spelling.thought(closing), _GAP]
    return Constraint(
        ConstraintKind.LARK, "\n".join([*lines, *rules(constraint, openings, spelling, held)])
    )


def rules(
    constraint: Constraint,
    openings: Sequence[str],
    spelling: Spelling,
    held: JsonCalls | None = None,
) -> list[str]:
    """The rules `answer`, as the constraint has it, and `call`, where there are openings."""
    match constraint.kind:
        case ConstraintKind.JSON_OBJECT:
            answer = f"answer: %json {_bounded({'type': 'object'})}"
        case ConstraintKind.JSON_SCHEMA:
            answer = f"answer: %json {_bounded(_schema(constraint.text))}"
        case ConstraintKind.REGEX:
            answer = f"answer: /{_SLASH.sub(_escaped, constraint.text)}/"
        case ConstraintKind.LARK:
            answer = f"answer: %lark {{\n{constraint.text}\n}}"
    if held is not None:
        schema = _bounded(_schema(held.schema))
        markers = {"opening": spelling(held.opening), "closing": spelling(held.closing)}
        return [answer, _HELD_CALL.format(schema=schema, **markers)]
    if openings:
        return [answer, _CALL.format(openings=" | ".join(map(spelling, openings)))]
    return [answer]


def _escaped(match: re.Match[str]) -> str:
    return {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}.get(match[0], match[0])


def _schema(text: str) -> dict[str, Any]:
    try:
        schema: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(f"is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise _refused("is no object.")
    try:  # behind other text, an answer that cannot begin would only be waited for
        SchemaDocument(schema).followed(schema)
    except LookupError as error:
        raise _refused(
            f"has a reference that leads nowhere, or only to itself: {error}."
        ) from error
    return schema  # pyright: ignore[reportUnknownVariableType] - JSON


def _refused(why: str) -> FleetError:
    return FleetError(Reason.BAD_CONSTRAINT, f"The JSON schema {why}", field="constraint")


def _bounded(schema: Mapping[str, Any]) -> str:
    """The schema with white space bounded, where small models lose themselves for ever."""
    return json.dumps({**schema, "x-guidance": {"whitespace_pattern": _WHITE_SPACE}})
