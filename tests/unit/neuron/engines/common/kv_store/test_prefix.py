import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engines.common.kv_store.prefix import common_prefix

TOKENS = st.lists(st.integers(0, 2), max_size=12)


@given(TOKENS, TOKENS)
def test_the_common_prefix_is_the_longest_one(left: list[int], right: list[int]) -> None:
    plain = sum(
        1 for _ in itertools.takewhile(lambda p: p[0] == p[1], zip(left, right, strict=False))
    )

    assert common_prefix(left, right) == plain
