import itertools

from services.backplane.backoff import delays


def test_delays_grow_to_the_cap_and_stay_there():
    taken = list(itertools.islice(delays(first=1, factor=2, cap=4, jitter=0), 5))

    assert [1, 2, 4, 4, 4] == taken


def test_jitter_stays_within_its_share():
    for delay in itertools.islice(delays(first=1, factor=1, cap=1, jitter=0.2), 100):
        assert 0.8 <= delay <= 1.2
