"""Which failures another model or another server may mend."""

from types import SimpleNamespace
from typing import Any

import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.routing.upstreams.unserved import is_unable, is_unserved

FRESH: Any = SimpleNamespace(may_restart=True, first_token_at=0.0)
BEGUN: Any = SimpleNamespace(may_restart=True, first_token_at=5.0)
TOLD: Any = SimpleNamespace(may_restart=False, first_token_at=0.0)


@pytest.mark.parametrize("reason", [Reason.NO_NEURONS, Reason.NO_ROOM, Reason.UPSTREAM_FAILED])
def test_what_nothing_serves_may_be_served_elsewhere_until_it_begins(reason: Reason):
    error = FleetError(reason, "No.")

    assert is_unserved(error, [FRESH, FRESH])
    assert not is_unserved(error, [FRESH, BEGUN])
    assert not is_unserved(error, [TOLD])


@pytest.mark.parametrize(
    "reason",
    [Reason.BAD_REQUEST, Reason.CONTEXT_TOO_LONG, Reason.RATE_LIMITED, Reason.CANCELLED],
)
def test_mistakes_and_limits_are_not_mended_elsewhere(reason: Reason):
    assert not is_unserved(FleetError(reason, "No."), [FRESH])


def test_what_is_asked_for_may_be_too_much_for_one_server_alone():
    assert is_unable(FleetError(Reason.UNSUPPORTED_FIELD, "No."))
    assert not is_unable(FleetError(Reason.BAD_REQUEST, "No."))
