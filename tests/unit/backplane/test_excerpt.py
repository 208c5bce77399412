import pytest

from services.backplane.excerpt import excerpt


@pytest.mark.parametrize("text", ["", "short", "x" * 100, "é" * 50, "\ud800"])
def test_what_is_short_enough_stays_as_it_is(text):
    assert text == excerpt(text, 100)


@pytest.mark.parametrize("letter", ["x", "é", "日", "😊"])
def test_a_long_text_keeps_its_beginning_and_its_end(letter):
    cut = excerpt("from " + letter * 5_000_000 + " to", 100)

    assert cut.startswith(f"from {letter}")
    assert cut.endswith(f"{letter} to")
    assert " … " in cut
    assert len(cut.encode()) <= 100
