from services.neuron.engines.common.wait_estimate import WaitEstimate


def test_no_wait_is_told_before_the_first_end() -> None:
    assert WaitEstimate(4).seconds_until(0) is None


def test_waiting_grows_with_the_position_and_shrinks_with_places() -> None:
    pace = WaitEstimate(2)
    pace.note(10)

    assert pace.seconds_until(0) == 5
    assert pace.seconds_until(3) == 20


def test_a_retry_is_never_advised_at_once() -> None:
    pace = WaitEstimate(8)
    pace.note(0.01)

    assert pace.seconds_until(0) == 1


def test_the_average_follows_slowly() -> None:
    pace = WaitEstimate(1)
    pace.note(10)
    pace.note(20)

    assert pace.seconds_until(0) == 12
