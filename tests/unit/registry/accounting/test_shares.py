"""A limit divided between gateways: never more than the whole, nothing counted twice or for ever."""

from __future__ import annotations

import copy

import hypothesis
from hypothesis import strategies as st

from services.registry.accounting.shares import Claim, Grant, ShareKey, Shares

KEY = ShareKey("ada", 2, 3, 0, 86_400)
LEASE = 10.0


def claim(used: int = 0, reserved: int = 0, wanted: int = 0, *, limit: int = 100) -> Claim:
    return Claim(KEY, limit, used, reserved, wanted)


def ask(shares: Shares, holder: str, one: Claim, now: float = 0.0) -> Grant:
    return shares.claim(holder, one, now=now, lease_seconds=LEASE)[0]


def test_what_one_holds_another_cannot_have():
    shares = Shares()

    assert ask(shares, "one", claim(wanted=70)) == Grant(70, 30)
    assert ask(shares, "two", claim(wanted=70)) == Grant(30, 0)


def test_what_is_given_back_is_there_for_others():
    shares = Shares()
    ask(shares, "one", claim(wanted=100))

    ask(shares, "one", claim(used=20, wanted=20))

    assert ask(shares, "two", claim(wanted=100)) == Grant(80, 0)


def test_the_same_claim_again_changes_nothing():
    shares = Shares()
    ask(shares, "one", claim(used=20, wanted=50))

    assert ask(shares, "one", claim(used=20, wanted=50)) == Grant(50, 50)


def test_an_older_claim_takes_no_use_back():
    shares = Shares()
    ask(shares, "one", claim(used=20, wanted=20))

    ask(shares, "one", claim(used=10, wanted=10))

    assert ask(shares, "two", claim(wanted=100)) == Grant(80, 0)


def test_what_a_gateway_did_not_spend_comes_back_when_it_is_not_heard_of():
    shares = Shares()
    ask(shares, "one", claim(used=20, reserved=10, wanted=90))

    assert ask(shares, "two", claim(wanted=100), now=LEASE - 1) == Grant(10, 0)
    assert ask(shares, "two", claim(wanted=100), now=LEASE) == Grant(80, 0)


def test_a_gateway_that_is_back_is_counted_once():
    shares = Shares()
    ask(shares, "one", claim(used=20, wanted=90))
    ask(shares, "two", claim(used=0, wanted=100), now=LEASE)

    assert ask(shares, "one", claim(used=25, wanted=25), now=LEASE + 1) == Grant(25, 0)
    assert ask(shares, "two", claim(used=0, wanted=0), now=LEASE + 1) == Grant(0, 75)


def test_what_was_used_already_is_granted_whatever_is_left():
    shares = Shares()
    ask(shares, "one", claim(wanted=100))

    assert ask(shares, "two", claim(used=5, reserved=3, wanted=50)) == Grant(8, 0)


def test_another_window_is_another_share():
    shares = Shares()
    ask(shares, "one", claim(used=100, wanted=100))
    later = claim(wanted=10)._replace(key=KEY._replace(starts_at=86_400, ends_at=172_800))

    assert ask(shares, "one", later) == Grant(10, 90)


def test_windows_that_ended_an_hour_ago_are_forgotten():
    shares = Shares()
    ask(shares, "one", claim(used=1, wanted=1))

    shares.forget_ended(86_400 + 3600)
    assert shares.of(KEY)
    shares.forget_ended(86_400 + 3601)
    assert not shares.of(KEY)


def test_a_lapsed_share_of_what_is_held_at_one_time_is_forgotten():
    key = KEY._replace(ends_at=0)
    shares = Shares()
    ask(shares, "one", claim(reserved=3, wanted=3)._replace(key=key))

    shares.forget_ended(LEASE + 1)

    assert not shares.of(key)


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.integers(0, 40), st.integers(0, 7)),
    max_size=40,
)


@hypothesis.given(STEPS, st.booleans())
def test_gateways_that_keep_to_their_grants_stay_within_the_limit(steps, is_stored):
    """Each spends at most what it holds, may be silent for ever, and the registry may restart."""
    shares, now, limit = Shares(), 0.0, 100
    used, granted, lapses = (
        dict.fromkeys("abc", 0),
        dict.fromkeys("abc", 0),
        dict.fromkeys("abc", 0.0),
    )
    for holder, spends, wants, pause in steps:
        now += pause
        if now >= lapses[holder]:
            granted[holder] = used[holder]  # as a gateway does that could not renew in time
        used[holder] = min(used[holder] + spends, max(granted[holder], used[holder]))
        grant = ask(shares, holder, claim(used[holder], 0, used[holder] + wants), now)
        granted[holder], lapses[holder] = grant.granted, now + LEASE
        if is_stored:
            shares = Shares(copy.deepcopy(shares.of(KEY)))
        assert sum(used.values()) <= limit


def test_nothing_stays_of_what_was_held_at_one_time():
    key = ShareKey("ada", 3, 4, 0, 0)
    shares = Shares()
    shares.claim("one", Claim(key, 4, 0, 1, 2), now=0.0, lease_seconds=LEASE)

    shares.forget_ended(LEASE + 1)

    assert not shares.of(key)
    assert not len(shares)


def test_what_neurons_have_measured_is_taken_off_before_a_limit_is_divided():
    shares = Shares()
    ask(shares, "one", claim(wanted=30))

    spent = claim(wanted=100)._replace(measured=60)

    assert ask(shares, "two", spent) == Grant(10, 0)
    assert ask(shares, "one", claim(reserved=30, wanted=40)._replace(measured=80)) == Grant(30, 0)
