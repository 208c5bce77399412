from services.neuron.engines.llamacpp.batch.narrowing import (
    MOST_GIVEN_UP,
    NARROW_STEPS,
    Narrowing,
)


def test_a_stream_that_is_refused_is_tried_with_half_until_one_token_is_left() -> None:
    narrowing = Narrowing()

    assert [narrowing.note_refusal(count) for count in (64, 32, 3, 1)] == [32, 16, 1, 0]
    assert narrowing.bounded(64) == 1


def test_what_was_too_much_is_tried_again_after_some_steps() -> None:
    narrowing = Narrowing()
    narrowing.begin()
    narrowing.note_refusal(64)

    for _ in range(NARROW_STEPS):
        assert narrowing.is_on
        narrowing.begin()
        narrowing.end_step()

    assert not narrowing.is_on
    assert narrowing.bounded(64) == 64


def test_it_is_hopeless_once_nothing_ran_between_many_that_were_given_up() -> None:
    narrowing = Narrowing()

    for _ in range(MOST_GIVEN_UP - 1):
        narrowing.note_refusal(1)
    assert not narrowing.is_hopeless
    narrowing.note_pass()
    for _ in range(MOST_GIVEN_UP):
        narrowing.note_refusal(1)

    assert narrowing.is_hopeless
