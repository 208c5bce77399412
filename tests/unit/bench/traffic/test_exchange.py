"""A client's verdict on an answer goes by its words first."""

import pytest

from bench.traffic.exchange import Exchange, Outcome, Seen, within

EXPECTED = "one two three"


def exchange(text: str) -> Exchange:
    made = Exchange("k", EXPECTED, began=1.0)
    for number, word in enumerate(text.split(" ")):
        made.add(word if number == 0 else f" {word}", 2.0 + number)
    return made


@pytest.mark.parametrize(
    ("text", "outcome", "verdict"),
    [
        (EXPECTED, Outcome.WHOLE, Outcome.WHOLE),
        ("one two", Outcome.WHOLE, Outcome.WRONG),
        ("one two two", Outcome.CUT, Outcome.WRONG),
        ("one two", Outcome.CUT, Outcome.CUT),
        ("one two", Outcome.TOLD, Outcome.TOLD),
        (f"{EXPECTED} one", Outcome.WHOLE, Outcome.WRONG),
        ("", Outcome.REFUSED, Outcome.REFUSED),
    ],
)
def test_text_that_is_not_the_models_is_wrong_whatever_else_happened(
    text: str, outcome: Outcome, verdict: Outcome
) -> None:
    made = exchange(text)

    made.end(outcome, 9.0)

    assert verdict is made.outcome


def test_the_longest_pause_is_between_pieces() -> None:
    made = Exchange("k", EXPECTED, began=1.0)
    for piece, now in (("one", 9.0), (" two", 9.5), (" three", 12.0)):
        made.add(piece, now)

    assert 2.5 == made.longest_gap


def test_the_difference_is_told_with_its_place() -> None:
    made = exchange("one two too")

    made.end(Outcome.CUT, 9.0, "reset")

    assert "reset at 9 of 13: 'one two too' for 'one two three'" == made.detail


def test_what_still_runs_counts_nowhere() -> None:
    ended, runs = exchange(EXPECTED), exchange("one")
    ended.end(Outcome.WHOLE, 9.0)
    seen = Seen([ended, runs])

    assert {Outcome.WHOLE: 1} == seen.counts()
    assert [] == seen.not_whole()
    assert [ended] == within(seen.exchanges, 9.0, 10.0)
    assert [] == within(seen.exchanges, 0.0, 9.0)
