"""The last requests."""

from services.gateway.console.ledger import MOST_REQUESTS, RequestLedger
from tests.unit.gateway.console.lines import line


def test_only_so_many_are_kept_and_all_are_counted():
    ledger = RequestLedger()

    for number in range(MOST_REQUESTS + 10):
        ledger.note(line(request_id=str(number)), "tiny")

    kept = ledger.newest(MOST_REQUESTS + 10)
    assert len(kept) == MOST_REQUESTS
    assert kept[0].request_id == str(MOST_REQUESTS + 9)
    assert ledger.count == MOST_REQUESTS + 10


def test_a_listing_that_went_well_is_no_request():
    ledger = RequestLedger()

    ledger.note(line(dialect="models", model=""), "unknown")
    refused = {"event": "request.failed", "status": 401, "reason": "UNAUTHENTICATED"}
    ledger.note(line(dialect="models", model="", **refused), "unknown")

    assert [one.reason for one in ledger.newest(10)] == ["UNAUTHENTICATED"]


def test_what_may_quote_a_client_is_left_out():
    ledger = RequestLedger()

    ledger.note(line(event="request.failed", reason="BAD_REQUEST", detail="it said 'secret'"), "")

    assert "secret" not in str(ledger.newest(1))


def test_a_reader_gets_what_came_behind_in_order_and_of_many_the_newest():
    ledger = RequestLedger()
    for number in range(6):
        ledger.note(line(request_id=str(number)), "tiny")

    assert [one.request_id for one in ledger.since(4, 10)] == ["4", "5"]
    assert [one.request_id for one in ledger.since(0, 3)] == ["3", "4", "5"]
    assert ledger.since(6, 10) == []
