"""Schemas of structs, messages and examples."""

from typing import Any

import jsonschema
import msgspec
import pytest

from cortex.v1 import key_service_pb2 as pb
from services.gateway.dialects.common.json_body import BodyReader, FieldRules
from services.gateway.dialects.schemas import Schemas, like


class Inner(msgspec.Struct):
    text: str = ""


class Body(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    parts: list[Inner] | None = None
    schema: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


RULES = FieldRules(ignored=frozenset({"user"}), refused={"mirostat": (0,)})


def is_valid(schemas: Schemas, schema: dict[str, Any], value: object) -> bool:
    whole = {**schema, "components": {"schemas": schemas.components}}
    return jsonschema.Draft202012Validator(whole).is_valid(value)


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({"model": "a", "parts": [{"text": "b", "more": 1}], "schema": {"type": "object"}}, True),
        ({"model": "a", "parts": None, "user": "ann", "mirostat": 0}, True),
        ({"model": "a", "mirostat": 2}, False),
        ({"model": "a", "unknown": 1}, False),
        ({"parts": []}, False),
        ({"model": 5}, False),
    ],
)
def test_a_body_fits_where_its_reader_takes_it(body, fits):
    table = BodyReader(Body, RULES)
    schemas = Schemas([Body])

    assert fits is is_valid(schemas, schemas.of_body(table), body)
    if fits:
        table.read(msgspec.json.encode(body))


def test_a_message_is_described_as_its_json_is_read():
    schemas = Schemas([])
    schema = schemas.of_message(pb.CreateKeyRequest.DESCRIPTOR)

    for fits, body in (
        (True, {"name": "ci", "scopes": {"models": ["a*"]}, "expires_at": "2030-01-01T00:00:00Z"}),
        (True, {"limits": {"tokensPerDay": "5", "tokens_per_month": 5}}),
        (False, {"name": 5}),
        (False, {"scopes": {"models": "a*"}}),
    ):
        assert fits is is_valid(schemas, schema, body), body


def test_what_only_some_examples_have_is_not_required():
    schema = like([{"error": {"code": "a", "param": None}}, {"error": {"code": "b", "param": "p"}}])
    both = like([{"a": 1}, {"b": 1}])

    assert {"type": ["null", "string"]} == schema["properties"]["error"]["properties"]["param"]
    assert ["code", "param"] == schema["properties"]["error"]["required"]
    assert [] == both["required"]
