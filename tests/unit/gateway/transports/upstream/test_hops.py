"""How often a request was sent on."""

import pytest

from services.gateway.transports.upstream.hops import HEADER, MOST, hops_of


@pytest.mark.parametrize(("told", "hops"), [("0", 0), ("3", 3), ("9", 9)])
def test_hops_are_counted(told: str, hops: int):
    assert hops == hops_of({HEADER: told})


@pytest.mark.parametrize("told", ["", "-1", "12", "x", "²", " 1"])
def test_what_is_no_number_is_sent_on_no_more(told: str):
    assert MOST == hops_of({HEADER: told})


def test_a_client_says_nothing_of_it():
    assert 0 == hops_of({})
