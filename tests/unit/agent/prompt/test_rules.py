from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.agent.prompt.rules import RulesFile, fitted


def rules(*lengths: int) -> tuple[RulesFile, ...]:
    return tuple(RulesFile(Path(f"/p/{n}"), "x" * length) for n, length in enumerate(lengths))


def test_files_that_fit_are_left_as_they_are():
    assert rules(10, 20) == fitted(rules(10, 20), 30)


def test_the_closest_file_is_cut_last():
    users, root, closest = fitted(rules(5000, 5000, 800), 2000)

    assert "x" * 800 == closest.text
    assert "4436 characters left out" in users.text
    assert "characters left out" in root.text


@given(st.lists(st.integers(0, 40_000), max_size=6), st.integers(0, 50_000))
def test_together_they_have_what_they_may(lengths: list[int], limit: int):
    cut = fitted(rules(*lengths), limit)

    assert sum(len(each.text) for each in cut) <= limit + 50 * len(lengths)
    assert [each.path for each in cut] == [each.path for each in rules(*lengths)]
