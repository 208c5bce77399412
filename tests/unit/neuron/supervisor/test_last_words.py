"""What a worker writes is told without what its libraries quote."""

from __future__ import annotations

import pytest

from services.neuron.supervisor.last_words import LastWords
from tests.doubles.planted import BODY, OUTPUT, PROMPT

NOTE = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"
PLACE = "parser/src/earley/regexvec.rs:12:5"


def told(*lines: str) -> list[str]:
    words = LastWords()
    kept = [text for line in lines if (text := words.take(f"{line}\n".encode())) is not None]
    assert str(words) == "\n".join(kept)
    return kept


@pytest.mark.parametrize(
    "panic",
    [
        [f"thread '<unnamed>' panicked at {PLACE}:", f"byte index 5 of `{PROMPT}", f"{OUTPUT}`"],
        [f"thread '<unnamed>' (77) panicked at {PLACE}:", BODY],
        [f"thread 'main' panicked at 'index of {BODY}', {PLACE}"],
    ],
    ids=["of today", "with a thread's number", "of old"],
)
@pytest.mark.parametrize("note", [[NOTE], []], ids=["first", "later"])
def test_a_panic_is_told_by_its_place_and_not_by_its_message(panic: list[str], note: list[str]):
    kept = told("before", *panic, *note, "worker: behind it")

    assert kept == ["before", f"panicked at {PLACE}", "worker: behind it"]


def test_lines_go_on_behind_a_note():
    assert told(f"thread 'a' panicked at {PLACE}:", BODY, NOTE, "anything")[-1] == "anything"


def test_the_tail_is_bounded():
    words = LastWords()
    for number in range(100):
        words.take(f"{number} {'x' * 200}\n".encode())

    assert len(str(words)) == 4000
    assert str(words).splitlines()[-1].startswith("99 ")
