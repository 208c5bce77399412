from services.neuron.engines.common.sampling import PositionalBits


def drawn(seed: int, *, position: int, size: int, count: int) -> list[int]:
    bits = PositionalBits(seed, position=position, size=size)
    return [bits.draw() for _ in range(count)]


def test_a_seed_draws_the_same_numbers_in_every_release() -> None:
    assert drawn(7, position=0, size=8, count=2) == [8897377932090396327, 16121955707118586674]
    assert drawn(7, position=0, size=4, count=2) == [634993104, 598683649]
    assert drawn(-1, position=3, size=4, count=1) == [2533793158]


def test_who_begins_later_draws_what_would_have_come() -> None:
    whole = drawn(42, position=0, size=8, count=10)

    assert drawn(42, position=4, size=8, count=6) == whole[4:]
    assert len(set(whole)) == 10
