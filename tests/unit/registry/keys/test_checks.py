"""What cannot be held to is refused when it is set."""

import math

import pytest

from cortex.v1 import limits_pb2
from services.backplane.errors import FleetError, Reason
from services.registry.keys import checks


@pytest.mark.parametrize("name", ["gpu_seconds_per_day", "gpu_seconds_per_month"])
@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_a_budget_that_is_no_time_is_refused_by_name(name: str, seconds: float):
    limits = limits_pb2.Limits(tokens_per_day=5)
    setattr(limits, name, seconds)

    with pytest.raises(FleetError) as refused:
        checks.check_limits(limits, "limits")

    assert (refused.value.reason, refused.value.field) == (Reason.BAD_REQUEST, f"limits.{name}")


def test_other_limits_are_taken():
    checks.check_limits(limits_pb2.Limits(tokens_per_day=5, gpu_seconds_per_day=1.5), "limits")


@pytest.mark.parametrize("name", ["(others)", "(system)"])
def test_nobody_is_named_as_those_are_who_have_no_key(name: str):
    with pytest.raises(FleetError) as refused:
        checks.check_name(name, "principal")

    assert (refused.value.reason, refused.value.field) == (Reason.BAD_REQUEST, "principal")
