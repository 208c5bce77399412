"""Schemas that typed clients have written."""

from __future__ import annotations

import json

import msgspec
import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.json_schema import schema_text


def test_a_schema_is_kept_as_it_was_written() -> None:
    written = '{"type":  "object", "properties": {"z": {}, "a": {"default": 1.10}}}'

    assert schema_text(msgspec.Raw(written.encode()), "s") == written


@pytest.mark.parametrize("raw", [b"", b"null", b" null "])
def test_no_schema_is_no_text(raw: bytes) -> None:
    assert schema_text(msgspec.Raw(raw), "s") == ""


def test_keywords_that_are_null_are_left_out_and_data_is_not() -> None:
    written = {
        "type": "object",
        "description": None,
        "required": None,
        "$defs": None,
        "properties": {
            "required": {"type": ["string", "null"], "default": None, "enum": [None, "a"]},
            "any": None,
            "list": {"type": "array", "items": {"properties": None, "const": None}},
            "either": {"anyOf": [{"type": "null"}, {"required": None}], "oneOf": None},
        },
    }

    assert json.loads(schema_text(msgspec.Raw(json.dumps(written).encode()), "s")) == {
        "type": "object",
        "properties": {
            "required": {"type": ["string", "null"], "default": None, "enum": [None, "a"]},
            "any": {},
            "list": {"type": "array", "items": {"const": None}},
            "either": {"anyOf": [{"type": "null"}, {}]},
        },
    }


@pytest.mark.parametrize(
    "raw", [b"[]", b'"x"', b"1", b'{"a": "\xff"}', b'{"a": null, "b": "\\ud83d"}']
)
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(FleetError) as refused:
        schema_text(msgspec.Raw(raw), "s")

    assert refused.value.reason is Reason.BAD_REQUEST
