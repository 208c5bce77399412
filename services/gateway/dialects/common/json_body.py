"""Decodes JSON bodies to typed structs; every refusal names the field at fault.

The fast path is one typed decode. Only a body with a field that the struct lacks takes the slow
path, where the dialect's `FieldRules` say whether that field is ignored or refused.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.slices import rest

T = TypeVar("T")

# Of a larger body nothing is decoded twice.
_LARGE: Final = 1 << 20
_FIELDS: Final[msgspec.json.Decoder[dict[str, msgspec.Raw]]] = msgspec.json.Decoder(
    dict[str, msgspec.Raw]
)

# Characters that end a line for readers that split as Unicode does, in UTF-8, and their escapes.
# JSON lets them stand in strings as they are; Python's `splitlines` and `httpx` cut there.
_LINE_ENDS: Final = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)

_AT = re.compile(r"(?s)^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?$")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]+)`")
# An escape in a JSON string: of a pair of surrogates, of one without the other, or any other.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(?P<half>\\u[dD][89a-fA-F]..)|\\.", re.DOTALL
)
_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")


def encode(value: Any, *, _encode: Callable[[Any], bytes] = msgspec.json.encode) -> bytes:
    """Compact JSON in UTF-8 of what a client reads: one line, however its reader splits lines.

    It is called for every token; the library's function as a default is found without a look-up.
    """
    found = _encode(value)
    if not found.isascii():
        for character, escape in _LINE_ENDS:
            found = found.replace(character, escape)
    return found


def encode_text(value: Any) -> str:
    """Compact JSON as text."""
    return msgspec.json.encode(value).decode()


def bad(field: str | None, message: str) -> FleetError:
    """BAD_REQUEST for one field; the message is put behind the field's name."""
    return FleetError(Reason.BAD_REQUEST, f"{field}: {message}" if field else message, field=field)


def unsupported(field: str, message: str) -> FleetError:
    """UNSUPPORTED_FIELD: well formed, but nothing here can do it."""
    return FleetError(Reason.UNSUPPORTED_FIELD, f"{field}: {message}", field=field)


def _unknown(name: str) -> str:
    return f"Unrecognized request argument supplied: {name}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FieldRules:
    """What happens to a top-level field that the dialect's struct does not name.

    Attributes:
        ignored: names of fields that are ignored: the API has them and they change no token.
        refused: sampling fields that no engine here has, and the values that turn them off.
        unknown: words the refusal of all other fields.
    """

    ignored: frozenset[str]
    refused: Mapping[str, tuple[Any, ...]] = dataclasses.field(
        default_factory=dict[str, tuple[Any, ...]]
    )
    unknown: Callable[[str], str] = _unknown

    def check(self, fields: Mapping[str, msgspec.Raw], known: frozenset[str], *, lax: bool) -> None:
        """Checks the fields that the struct lacks.

        Raises:
            FleetError: UNSUPPORTED_FIELD for a sampling field that is on, BAD_REQUEST for a field
                that nobody knows (unless `lax`).
        """
        for name, value in fields.items():
            if name in known or name in self.ignored:
                continue
            if name in self.refused:
                said = msgspec.json.decode(value)
                if said is None or said in self.refused[name]:
                    continue
                raise unsupported(name, "no engine of this fleet has this sampling field.")
            if not lax:
                raise FleetError(Reason.BAD_REQUEST, self.unknown(name), field=name)


class BodyReader:
    """Decodes one kind of body, in steps between which a thread whose work is sliced rests.

    Attributes:
        shape: the msgspec struct.
        rules: for fields that it lacks.
    """

    def __init__(self, shape: type[Any], rules: FieldRules) -> None:
        self.shape = shape
        self.rules = rules
        self._decoder = msgspec.json.Decoder(shape)
        self._lenient = msgspec.json.Decoder(
            msgspec.defstruct(shape.__name__, (), bases=(shape,), forbid_unknown_fields=False)
        )
        self._known = frozenset(shape.__struct_encode_fields__)

    def read(self, body: bytes, *, lax: bool = False) -> Any:
        """Decodes a body into the reader's struct.

        Args:
            body: the whole body.
            lax: ignore top-level fields that are not known (a beta header was sent).

        Raises:
            FleetError: with the path of the field at fault.
        """
        if len(body) <= _LARGE:
            try:
                return self._decoder.decode(body)
            except msgspec.ValidationError as complaint:
                if not str(complaint).startswith("Object contains unknown field"):
                    raise complained(complaint) from None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
                raise not_json(broken) from None
        return self._read_slowly(body, lax=lax)

    def _read_slowly(self, body: bytes, *, lax: bool) -> Any:
        """Looks at the names first, which copies nothing, then decodes what is known, once."""
        fields: dict[str, msgspec.Raw] = _decoded(_FIELDS, body)
        self.rules.check(fields, self._known, lax=lax)
        rest()
        found = _decoded(self._lenient, body)
        rest()
        return found


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as complaint:
        raise complained(complaint) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise not_json(broken) from None


def convert(value: Any, shape: type[T], path: str) -> T:
    """Turns decoded JSON that lies at `path` into a typed value.

    Raises:
        FleetError: BAD_REQUEST with the full path.
    """
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as complaint:
        raise complained(complaint, path) from None


def not_json(broken: Exception) -> FleetError:
    """BAD_REQUEST for a body that is no JSON in UTF-8."""
    return FleetError(Reason.BAD_REQUEST, f"The body is not valid JSON in UTF-8: {broken}.")


def complained(complaint: msgspec.ValidationError, base: str = "") -> FleetError:
    """BAD_REQUEST for a decoder's error, with the field's path in dots (`messages.0.content`)."""
    match = _AT.match(str(complaint))
    what, path = (match["what"], match["path"] or "") if match else (str(complaint), "")
    missing = _MISSING.search(what)
    if missing:
        path += "." + missing["name"]
        what = "Field required."
    dotted = _INDEX.sub(r".\1", path).strip(".")
    field = ".".join(step for step in (base, dotted) if step)
    if not field:
        return FleetError(Reason.BAD_REQUEST, f"The body is not right: {what}.")
    return bad(field, what if what.endswith(".") else what + ".")


def object_of(arguments_json: str) -> dict[str, Any]:
    """The arguments of a whole call as the object that an API promises.

    What the model wrote may be no JSON, or no object: it is then kept under the key `arguments`.
    Half of a surrogate pair, which text cannot hold, becomes U+FFFD, and a number that is too large
    the largest that there is.
    """
    try:
        found = msgspec.json.decode(arguments_json or "{}")
    except (msgspec.DecodeError, RecursionError):
        found = _tolerantly(arguments_json)
    return found if isinstance(found, dict) else {"arguments": found}


def _tolerantly(text: str) -> Any:
    """JSON with what msgspec has no value for; other text as it is."""
    try:
        whole = _ESCAPE.sub(_whole_character, text)
        return json.loads(whole, parse_float=_finite, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text


def _finite(number: str) -> float:
    return max(-sys.float_info.max, min(float(number), sys.float_info.max))


def _no_number(word: str) -> float:
    raise ValueError(word)


def _whole_character(escape: re.Match[str]) -> str:
    return "\\ufffd" if escape["half"] else escape[0]


def cut_call(name: str, arguments_json: str) -> str:
    """A call that was cut, as text, for APIs whose calls have an object: half of one is none."""
    return f"{name}({arguments_json}"
