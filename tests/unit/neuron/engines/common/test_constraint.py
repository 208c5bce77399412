import itertools
import json
import time

import numpy as np
import pytest

from services.neuron.engine_api.task import Constraint, ConstraintKind
from services.neuron.engines.common.constraint import (
    BadConstraintError,
    ConstraintCompiler,
    OutputConstraint,
)

EOS = 0
PIECES = [b"<eos>", b"<think>", *[bytes([b]) for b in range(256)], b'{"', b"yes", b""]


@pytest.fixture(scope="module")
def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(
        pieces=PIECES,
        special_token_ids=[0, 1],
        eos_token_id=EOS,
        tokenize=lambda text: [2 + b for b in text],
    )


def allowed(constraint: OutputConstraint, size: int = len(PIECES)) -> set[bytes]:
    row = np.zeros(size, np.float32)
    constraint.apply(row)
    return {PIECES[i] if i < len(PIECES) else b"?" for i in np.flatnonzero(row == 0)}


def test_only_what_may_come_next_is_allowed(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Constraint(ConstraintKind.REGEX, "(yes|no)"))

    assert allowed(constraint) == {b"y", b"yes", b"n"}


def test_the_end_is_allowed_when_the_shape_is_complete(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Constraint(ConstraintKind.REGEX, "yes!?"))

    constraint.accept(PIECES.index(b"yes"))

    assert allowed(constraint) == {b"!", b"<eos>"}
    assert not constraint.is_finished
    constraint.accept(2 + ord("!"))
    assert constraint.is_finished


def test_special_tokens_are_no_text(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Constraint(ConstraintKind.REGEX, "<think>"))

    assert allowed(constraint) == {b"<"}


def test_tokens_beyond_the_vocabulary_are_banned(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Constraint(ConstraintKind.REGEX, "[a-z]"))

    assert b"?" not in allowed(constraint, size=len(PIECES) + 64)


def test_white_space_is_bounded(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Constraint(ConstraintKind.JSON_OBJECT))
    constraint.accept(2 + ord("{"))

    for _ in range(2):
        constraint.accept(2 + ord(" "))

    assert b" " not in allowed(constraint)


def test_a_token_that_does_not_fit_is_told(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Constraint(ConstraintKind.REGEX, "yes"))

    with pytest.raises(BadConstraintError):
        constraint.accept(2 + ord("x"))


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (Constraint(ConstraintKind.JSON_SCHEMA, '{"type": "objekt"}'), "objekt"),
        (Constraint(ConstraintKind.JSON_SCHEMA, "{nope"), "key must be a string"),
        (Constraint(ConstraintKind.JSON_SCHEMA, '{"$ref": "#/$defs/x"}'), "does not exist"),
        (Constraint(ConstraintKind.REGEX, "a(b"), "unclosed group"),
        (Constraint(ConstraintKind.LARK, "start: nowhere"), "nowhere"),
        (Constraint(ConstraintKind.LARK, ""), "Empty grammar"),
    ],
)
def test_a_bad_constraint_says_what_is_wrong(
    compiler: ConstraintCompiler, constraint: Constraint, words: str
) -> None:
    with pytest.raises(BadConstraintError, match=words) as caught:
        compiler.compile(constraint)

    assert "\n" not in str(caught.value)


def test_pieces_too_long_for_the_library_may_not_come_and_harm_nobody() -> None:
    pieces = [*PIECES, b"y" * 5000, b"y" * 1025, b"y" * 1024]
    compiler = ConstraintCompiler(
        pieces=pieces,
        special_token_ids=[0, 1],
        eos_token_id=EOS,
        tokenize=lambda text: [2 + b for b in text],
    )
    constraint = compiler.compile(Constraint(ConstraintKind.REGEX, "y+"))

    row = np.zeros(len(pieces), np.float32)
    constraint.apply(row)

    assert {len(pieces[i]) for i in np.flatnonzero(row == 0)} == {1, 1024}


def test_a_vocabulary_that_cannot_be_read_refuses_constraints_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library panics, and its panics are no exceptions that are usually caught."""
    monkeypatch.setattr("services.neuron.engines.common.constraint._LONGEST_PIECE_BYTES", 1_000_000)
    compiler = ConstraintCompiler(
        pieces=[*PIECES, b"y" * 5000],
        special_token_ids=[0, 1],
        eos_token_id=EOS,
        tokenize=lambda text: [2 + b for b in text],
    )

    with pytest.raises(BadConstraintError, match="llguidance cannot read the vocabulary"):
        compiler.compile(Constraint(ConstraintKind.REGEX, "y"))


def test_a_pattern_that_takes_too_long_is_ended(
    compiler: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: next(clock) * 0.1)
    constraint = compiler.compile(Constraint(ConstraintKind.REGEX, "[a-z]*"))

    for _ in range(4):
        constraint.bitmask()
        constraint.accept(2 + ord("a"))
    constraint.bitmask()
    constraint.bitmask()

    with pytest.raises(BadConstraintError, match="too long"):
        constraint.accept(2 + ord("a"))


def test_tabs_between_the_marks_of_json_are_bounded(compiler: ConstraintCompiler) -> None:
    constraint = compiler.compile(Constraint(ConstraintKind.JSON_OBJECT))
    constraint.accept(2 + ord("{"))

    with pytest.raises(BadConstraintError):
        constraint.accept(2 + ord("\t"))


@pytest.mark.parametrize("indent", [None, 2, 4, "\t"])
def test_json_as_people_and_models_write_it_is_accepted(
    compiler: ConstraintCompiler, indent: int | str | None
) -> None:
    constraint = compiler.compile(Constraint(ConstraintKind.JSON_OBJECT))

    for byte in json.dumps({"a": {"b": [1, {"c": ["d"]}]}}, indent=indent).encode():
        constraint.accept(2 + byte)


CIRCLE = '{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}'


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ConstraintKind.JSON_SCHEMA, '{"$ref": "#"}'),
        (ConstraintKind.JSON_SCHEMA, CIRCLE),
        (ConstraintKind.JSON_SCHEMA, '{"allOf": [{"$ref": "#"}]}'),
        (ConstraintKind.REGEX, r"[^\s\S]"),
        (ConstraintKind.LARK, 'start: start "x"'),
    ],
)
def test_what_nothing_can_satisfy_is_refused(compiler, kind, text):
    with pytest.raises(BadConstraintError, match="nothing can satisfy it"):
        compiler.compile(Constraint(kind, text))


@pytest.mark.parametrize("text", ["", "a?", "[a-z]*"])
def test_a_shape_that_may_be_empty_is_none_that_nothing_satisfies(compiler, text):
    assert "<eos>" in str(allowed(compiler.compile(Constraint(ConstraintKind.REGEX, text))))


def test_the_end_is_none_where_the_shape_cannot_be_completed(compiler):
    constraint = compiler.compile(Constraint(ConstraintKind.LARK, 'start: "a" b\nb: b "x"'))
    constraint.accept(2 + ord("a"))

    assert allowed(constraint) == {b"<eos>"}
    assert not constraint.is_finished
    with pytest.raises(BadConstraintError):
        constraint.accept(EOS)


def test_outputs_of_one_constraint_are_apart(compiler: ConstraintCompiler) -> None:
    first, second = (
        compiler.compile(Constraint(ConstraintKind.REGEX, "(yes|no)!")) for _ in range(2)
    )

    first.accept(PIECES.index(b"yes"))

    assert allowed(first) == {b"!"}
    assert allowed(second) == {b"y", b"yes", b"n"}
