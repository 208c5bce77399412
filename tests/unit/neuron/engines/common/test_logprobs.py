import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engines.common.logprobs import LogprobReader

ROWS = st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=40)


def reader(values: list[float], top: int = 0) -> LogprobReader:
    row = np.asarray(values, np.float32)
    return LogprobReader(row, top=top, piece=lambda i: b"%d" % i)


def test_probabilities_are_those_of_a_softmax() -> None:
    entry = reader([0.0, math.log(3.0)], top=2).of(0)

    assert math.isclose(entry.logprob, math.log(0.25), rel_tol=1e-6)
    assert entry.text == b"0"
    assert [alternative.token_id for alternative in entry.alternatives] == [1, 0]


def test_ties_go_to_the_lower_id() -> None:
    entry = reader([1.0, 2.0, 2.0, 2.0], top=3).of(0)

    assert [alternative.token_id for alternative in entry.alternatives] == [1, 2, 3]


def test_the_row_may_change_afterwards() -> None:
    row = np.zeros(2, np.float32)
    kept = LogprobReader(row, top=0, piece=lambda _: b"")

    row[:] = [100, -100]

    assert math.isclose(kept.of(1).logprob, math.log(0.5), rel_tol=1e-6)


def test_banned_tokens_have_no_probability() -> None:
    assert reader([0.0, -math.inf]).of(1).logprob == -math.inf


@given(ROWS)
def test_probabilities_sum_to_one(values: list[float]) -> None:
    ours = reader(values)

    total = sum(math.exp(ours.of(i).logprob) for i in range(len(values)))

    assert math.isclose(total, 1.0, rel_tol=1e-4)


@given(ROWS, st.integers(0, 50))
def test_alternatives_are_the_likeliest_in_order(values: list[float], top: int) -> None:
    alternatives = reader(values, top).of(0).alternatives

    told = [alternative.logprob for alternative in alternatives]
    assert told == sorted(told, reverse=True)
    assert len(told) == min(top, len(values))
