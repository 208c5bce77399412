"""Changes to JSON values, texts, bytes and messages: by chance, and towards the smallest."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

# Stands in a body for JSON that is nested deeper than `json` itself can write.
DEEP: Final = "@deep@"
_DEEPLY: Final = b"[" * 20_000 + b"]" * 20_000
# What protobuf raises for a value that a field cannot hold.
_UNSENDABLE: Final = (ValueError, TypeError)
_ODD_TEXTS: Final = ("", " ", "\0", "\ud800", "\u202e", "x" * 5_000, "🙂", "{}", "[", "null", "-1")
_ODD_NUMBERS: Final = (0, -1, 1, 2**31, 2**63, 10**18, 10**400, 0.5, -0.0, 1e308, 1e-320)
_ODD: Final[Sequence[Any]] = (
    *_ODD_TEXTS,
    *_ODD_NUMBERS,
    *(None, True, False, [], {}, [[]], [None], [{}], {"": None}, {"type": 5}, DEEP),
    *(float("nan"), float("inf"), {"type": "object"}, [{"type": "text", "text": None}]),
)


def encoded(body: Any) -> bytes:
    """A body as bytes, with what is nested deeply in its place."""
    return json.dumps(body).encode().replace(f'"{DEEP}"'.encode(), _DEEPLY)


def mutated(random: Random, value: Any, others: Sequence[Any]) -> Any:
    """A copy of a JSON value with one to four changes, some of them pieces of other values."""
    made = {"": copy.deepcopy(value)}
    for _ in range(random.choice((1, 1, 2, 4))):
        _change(random, made, others)
    return made.get("")


def mutated_text(random: Random, text: str, others: Sequence[str]) -> str:
    """A text with pieces left out, doubled, put elsewhere, or from other texts."""
    for _ in range(random.choice((1, 1, 2, 4))):
        start, end = sorted(random.choices(range(len(text) + 1), k=2))
        other = random.choice(others)
        from_, to = sorted(random.choices(range(len(other) + 1), k=2))
        put = random.choice(
            ("", text[start:end] * 2, other[from_:to], other, random.choice(_ODD_TEXTS), "\\")
        )
        text = text[:start] + put + text[random.choice((start, end)) :]
    return text


def mutated_bytes(random: Random, data: bytes) -> bytes:
    """Bytes of which some are others, or that end early."""
    made = bytearray(data)
    for _ in range(random.choice((1, 2, 8))):
        if made:
            made[random.randrange(len(made))] = random.randrange(256)
    return bytes(made[: random.randrange(len(made) + 1)] if random.random() < 0.3 else made)


def mutate_message(random: Random, message: Message, texts: Sequence[str]) -> None:
    """Changes one field of a message or of one below it."""
    field: Any = random.choice(message.DESCRIPTOR.fields or [None])
    if field is None:
        return
    if random.random() < 0.2:
        message.ClearField(field.name)
        return
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        _mutate_below(random, message, field, texts)
        return
    value = _scalar(random, field, texts)
    with contextlib.suppress(*_UNSENDABLE):
        if field.is_repeated:
            getattr(message, field.name).extend([value] * random.choice((1, 1, 3)))
        else:
            setattr(message, field.name, value)


def smaller(value: Any) -> Iterator[Any]:
    """Values with one part less, the biggest parts first."""
    if isinstance(value, dict):
        for key in value:
            yield {other: value[other] for other in value if other != key}
        for key, each in value.items():
            yield from ({**value, key: less} for less in smaller(each))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value[:index] + value[index + 1 :]
        for index, each in enumerate(value):
            yield from ([*value[:index], less, *value[index + 1 :]] for less in smaller(each))
    elif isinstance(value, str | bytes):
        yield from _cut(value)


def _cut(value: Any) -> Iterator[Any]:
    step = len(value)
    while step:
        for start in range(0, len(value), step):
            yield value[:start] + value[start + step :]
        step //= 2


def _change(random: Random, made: dict[str, Any], others: Sequence[Any]) -> None:
    holder, key = random.choice(list(_places(made)))
    kind = random.random()
    if kind < 0.15 and holder is not made:
        del holder[key]
    elif kind < 0.25 and isinstance(holder, list):
        holder.insert(random.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
    elif kind < 0.35 and isinstance(holder, dict) and holder is not made:
        holder[random.choice(_ODD_TEXTS)] = holder.pop(key)
    elif kind < 0.6:
        there, name = random.choice(list(_places({"": random.choice(others)})))
        holder[key] = copy.deepcopy(there[name])
    elif kind < 0.65:
        holder[key] = [holder[key]]
    else:
        holder[key] = copy.deepcopy(random.choice(_ODD))


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    for key in keys:
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def _mutate_below(random: Random, message: Message, field: Any, texts: Sequence[str]) -> None:
    below: Any = getattr(message, field.name)
    if field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        if value.type != FieldDescriptor.TYPE_MESSAGE:
            with contextlib.suppress(*_UNSENDABLE):
                below[_scalar(random, key, texts)] = _scalar(random, value, texts)
        return
    if field.is_repeated:
        below = random.choice(below) if len(below) and random.random() < 0.7 else below.add()
    else:
        below.SetInParent()
    for _ in range(random.choice((1, 1, 2, 3))):
        mutate_message(random, below, texts)


def _scalar(random: Random, field: Any, texts: Sequence[str]) -> Any:
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random.randbytes(random.choice((0, 1, 40)))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return random.choice((*texts, *_ODD_TEXTS))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return random.choice((*field.enum_type.values_by_number, 99))
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return random.choice((0.0, 1.0, -1.0, 1e30, float("nan"), float("inf"), -float("inf")))
    return random.choice((0, 1, 5, -1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, -(2**63)))
