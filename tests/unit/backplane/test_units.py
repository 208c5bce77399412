import pytest

from services.backplane import units


@pytest.mark.parametrize(
    ("text", "count"),
    [("24GiB", 24 << 30), ("500MB", 500_000_000), ("1.5 MiB", 3 << 19), ("7B", 7)],
)
def test_sizes(text, count):
    assert units.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "12", "12 parsecs", "-1GiB"])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="is not"):
        units.parse_bytes(text)


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("90s", 90), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert units.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10 minutes"])
def test_durations_that_are_none(text):
    with pytest.raises(ValueError, match="is not"):
        units.parse_seconds(text)


def test_sizes_for_people():
    assert [units.format_bytes(n) for n in (0, 1023, 1536, 3 << 30, 5 << 40)] == [
        "0 B", "1023 B", "1.5 KiB", "3.0 GiB", "5.0 TiB",
    ]  # fmt: skip
