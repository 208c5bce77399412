from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engines.llamacpp.batch.slots import COPY_WORTH_TOKENS, CacheSlot, place

A = [1] * 100
B = [2] * 100


def whole(_: CacheSlot, common: int) -> int:
    return common


def slots(*contents: list[int], busy: tuple[int, ...] = ()) -> list[CacheSlot]:
    return [
        CacheSlot(index, list(tokens), is_busy=index in busy, used_at=index)
        for index, tokens in enumerate(contents)
    ]


def test_a_conversation_goes_on_in_its_own_slot() -> None:
    ours = slots([], A, B)

    placement = place(ours, [*B, 3], reusable=whole)

    assert placement is not None
    assert (placement.slot.index, placement.cached_tokens, placement.source) == (2, 100, None)


def test_the_last_token_is_always_read_again() -> None:
    placement = place(slots(A), A, reusable=whole)

    assert placement is not None
    assert placement.cached_tokens == 99


def test_a_common_beginning_is_copied_where_the_source_is_worth_keeping() -> None:
    donor = [*A[:50], *B, *B]
    ours = slots(donor, [])

    placement = place(ours, [*A[:50], 7, 7], reusable=whole)

    assert placement is not None
    assert placement.slot is ours[1]
    assert (placement.cached_tokens, placement.source) == (50, ours[0])


def test_a_busy_source_is_copied() -> None:
    ours = slots(A, [], busy=(0,))

    placement = place(ours, [*A, 5], reusable=whole)

    assert placement is not None
    assert (placement.slot, placement.source) == (ours[1], ours[0])


def test_a_short_common_beginning_is_not_worth_a_copy() -> None:
    few = COPY_WORTH_TOKENS - 1
    ours = slots([*A[:few], *B], [])

    placement = place(ours, [*A[:few], 9, 9], reusable=whole)

    assert placement is not None
    assert (placement.slot, placement.cached_tokens, placement.source) == (ours[1], 0, None)


def test_the_oldest_donor_is_given_up_first() -> None:
    ours = slots(A, B, [3] * 100)

    placement = place(ours, [9, 9], reusable=whole)

    assert placement is not None
    assert placement.slot.index == 0


def test_without_a_free_slot_there_is_no_place() -> None:
    assert place(slots(A, busy=(0,)), A, reusable=whole) is None


def test_models_that_cannot_be_cut_share_nothing() -> None:
    placement = place(slots(A), A, reusable=None)

    assert placement is not None
    assert placement.cached_tokens == 0


TOKENS = st.lists(st.integers(0, 2), max_size=12)


@given(
    st.lists(st.tuples(TOKENS, st.booleans()), min_size=1, max_size=5),
    st.lists(st.integers(0, 2), min_size=1, max_size=12),
)
def test_a_placement_never_promises_what_no_slot_holds(
    held: list[tuple[list[int], bool]], prompt: list[int]
) -> None:
    ours = [CacheSlot(i, tokens, is_busy=busy, used_at=i) for i, (tokens, busy) in enumerate(held)]

    placement = place(ours, prompt, reusable=whole)

    if placement is None:
        assert all(slot.is_busy for slot in ours)
        return
    assert not placement.slot.is_busy
    assert placement.cached_tokens < len(prompt)
    giver = placement.source or placement.slot
    assert giver.tokens[: placement.cached_tokens] == prompt[: placement.cached_tokens]
