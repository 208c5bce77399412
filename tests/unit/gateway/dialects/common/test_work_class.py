"""The class of a request."""

from __future__ import annotations

import pytest

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.common.work_class import ClassTerms, of_tier, settled

INTERACTIVE = generation.WORK_CLASS_INTERACTIVE
DEFAULT = generation.WORK_CLASS_DEFAULT
BATCH = generation.WORK_CLASS_BATCH


@pytest.mark.parametrize(
    ("tier", "header", "terms", "expected"),
    [
        (None, None, ClassTerms(), DEFAULT),
        ("auto", None, ClassTerms(usual="batch"), BATCH),
        ("default", None, ClassTerms(usual="batch"), DEFAULT),
        ("standard_only", None, ClassTerms(usual="batch"), DEFAULT),
        ("priority", None, ClassTerms(), INTERACTIVE),
        ("flex", None, ClassTerms(), BATCH),
        ("scale", None, ClassTerms(), DEFAULT),
        ("flex", "interactive", ClassTerms(), INTERACTIVE),
        ("priority", "batch", ClassTerms(), BATCH),
        ("priority", None, ClassTerms(highest="default"), DEFAULT),
        (None, "interactive", ClassTerms("batch", "batch"), BATCH),
        (None, None, ClassTerms("interactive", "default"), DEFAULT),
    ],
)
def test_the_header_counts_before_the_tier_and_both_within_the_key(
    tier: str | None,
    header: str | None,
    terms: ClassTerms,
    expected: generation.WorkClass.ValueType,
) -> None:
    headers = {} if header is None else {"x-cortex-class": header}

    assert settled(of_tier(tier), headers, terms) == expected


def test_a_header_that_names_no_class_is_refused_by_its_name() -> None:
    with pytest.raises(FleetError) as caught:
        settled(DEFAULT, {"x-cortex-class": "urgent"}, ClassTerms())

    assert caught.value.field == "x-cortex-class"
