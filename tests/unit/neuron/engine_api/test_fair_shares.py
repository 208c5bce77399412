import pytest

from services.neuron.engine_api import fair_shares
from services.neuron.engine_api.fair_shares import FairShares


def test_time_is_added_up_and_taken_back() -> None:
    shares = FairShares()

    shares.add("ada", 2.0)
    shares.add("ada", -0.5)

    assert shares.seconds == {"ada": 1.5}


def test_no_more_principals_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_shares, "_MOST_PRINCIPALS", 3)
    shares = FairShares()

    for number in range(20):
        shares.add(f"visitor {number}", 1.0)

    assert len(shares.seconds) <= 3
