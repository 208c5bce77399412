from services.neuron.engines.common.admission import Pace


def test_nothing_is_known_before_the_first_end() -> None:
    assert Pace(4).seconds_until(0) is None


def test_waiting_grows_with_the_position_and_shrinks_with_places() -> None:
    pace = Pace(2)
    pace.note(10)

    assert pace.seconds_until(0) == 5
    assert pace.seconds_until(3) == 20


def test_a_retry_is_never_advised_at_once() -> None:
    pace = Pace(8)
    pace.note(0.01)

    assert pace.seconds_until(0) == 1


def test_the_average_follows_slowly() -> None:
    pace = Pace(1)
    pace.note(10)
    pace.note(20)

    assert pace.seconds_until(0) == 12
