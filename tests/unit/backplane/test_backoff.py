import itertools

from services.backplane.backoff import delays, pause


def test_delays_grow_to_the_cap_and_stay_there():
    taken = list(itertools.islice(delays(first=1, factor=2, cap=4, jitter=0), 5))

    assert [1, 2, 4, 4, 4] == taken


def test_jitter_stays_within_its_share():
    for delay in itertools.islice(delays(first=1, factor=1, cap=1, jitter=0.2), 100):
        assert 0.8 <= delay <= 1.2


def test_a_pause_follows_from_the_number_of_attempts():
    assert [1, 2, 4, 5] == [pause(n, first=1, cap=5) for n in range(4)]


def test_a_pause_after_very_many_attempts_is_the_longest():
    assert 60.0 == pause(100_000, first=1.0, cap=60.0)
