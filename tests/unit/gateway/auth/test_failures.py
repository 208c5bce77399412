"""Wrong keys are slowed down by address."""

import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.auth import failures as module
from services.gateway.auth.failures import FailedKeys


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def failed(now):
    return FailedKeys(lambda: now[0])


def exhaust(failed, address):
    for _ in range(10):
        failed.was_wrong(address)


def test_after_ten_wrong_ones_an_address_waits(failed, now):
    exhaust(failed, "192.0.2.1")
    with pytest.raises(FleetError) as caught:
        failed.check("192.0.2.1", b"x")
    failed.check("192.0.2.2", b"x")
    now[0] += 2

    failed.check("192.0.2.1", b"x")

    assert (Reason.RATE_LIMITED, 2) == (caught.value.reason, caught.value.retry_after_seconds)


def test_who_was_let_in_from_there_before_still_is(failed):
    failed.was_right("192.0.2.1", b"mine")
    exhaust(failed, "192.0.2.1")

    failed.check("192.0.2.1", b"mine")
    with pytest.raises(FleetError):
        failed.check("192.0.2.1", b"other")


def test_a_network_of_version_six_is_one_address(failed):
    exhaust(failed, "2001:db8::1")

    with pytest.raises(FleetError):
        failed.check("2001:db8::2", b"x")
    failed.check("2001:db8:1::2", b"x")


def test_addresses_without_end_take_no_memory_without_end(failed, monkeypatch):
    monkeypatch.setattr(module, "_MOST_ADDRESSES", 8)
    monkeypatch.setattr(module, "_MOST_GOOD", 8)
    for number in range(100):
        failed.was_wrong(f"192.0.2.{number}")
        failed.was_right("192.0.2.1", bytes([number]))

    assert (8, 8) == (len(failed._buckets), len(failed._good))
