import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engines.llamacpp.batch.prefill import shares


@pytest.mark.parametrize(
    ("unread", "expected"),
    [
        ({}, {}),
        ({0: 500}, {0: 64}),
        ({0: 10, 1: 500}, {0: 10, 1: 54}),
        ({0: 500, 1: 500}, {0: 32, 1: 32}),
        ({0: 0, 1: 500}, {1: 64}),
    ],
)
def test_shares(unread: dict[int, int], expected: dict[int, int]) -> None:
    assert shares(unread, budget=64) == expected


@given(st.dictionaries(st.integers(0, 300), st.integers(0, 300), max_size=100), st.integers(1, 128))
def test_the_budget_is_kept_and_used(unread: dict[int, int], budget: int) -> None:
    granted = shares(unread, budget=budget)

    assert sum(granted.values()) == min(budget, sum(unread.values()))
    assert all(0 < count <= unread[key] for key, count in granted.items())
