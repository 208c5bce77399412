"""Bodies are read alike, whether small or of megabytes."""

from typing import Any

import msgspec
import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.json_body import BodyReader, FieldRules


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    depth: int = 0


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    inner: Inner | None = None


READER = BodyReader(
    Shape, FieldRules(ignored=frozenset({"metadata", "padding"}), refused={"odd": (0, [])})
)
LARGE = ' "padding": "%s",' % ("x" * (1 << 20))


def read(fields: str, padding: str, *, lax: bool = False) -> Any:
    return msgspec.structs.astuple(READER.read(("{" + padding + fields + "}").encode(), lax=lax))


@pytest.fixture(params=["", ' "metadata": {"a": [1]},', LARGE], ids=["known", "ignored", "large"])
def padding(request):
    return request.param


def test_known_fields_are_read(padding):
    assert ("a", Inner(1)) == read('"name": "a", "inner": {"depth": 1}', padding)
    assert ("a", None) == read('"name": "a", "odd": 0', padding)
    assert ("a", None) == read('"name": "a", "new": [1]', padding, lax=True)


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ('"name": "a", "new": 1', Reason.BAD_REQUEST, "new"),
        ('"name": "a", "odd": 1', Reason.UNSUPPORTED_FIELD, "odd"),
        ('"name": 1', Reason.BAD_REQUEST, "name"),
        ('"inner": {"depth": 1}', Reason.BAD_REQUEST, "name"),
        ('"name": "a", "inner": {"depth": "x"}', Reason.BAD_REQUEST, "inner.depth"),
        ('"name": "a", "inner": {"other": 1}', Reason.BAD_REQUEST, "inner"),
        ('"name": "a', Reason.BAD_REQUEST, None),
        ('"name": "a"}, 1', Reason.BAD_REQUEST, None),
    ],
)
def test_what_is_wrong_is_named(padding, fields, reason, field):
    with pytest.raises(FleetError) as caught:
        read(fields, padding)

    assert (caught.value.reason, caught.value.field) == (reason, field)


@pytest.mark.parametrize("body", [b"[]", b"1", b"", b'"x"', b"\xff", b"[" * (2 << 20)])
def test_what_is_no_object_is_refused(body):
    with pytest.raises(FleetError) as caught:
        READER.read(body)

    assert caught.value.reason is Reason.BAD_REQUEST
