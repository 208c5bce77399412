"""What a hub refuses is told so that its reader knows what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from services.backplane.errors import FleetError, Reason
from services.neuron.sources.hub import HubSource
from tests.doubles.hub_models import HUGE, REPO, WEIGHTS
from tests.doubles.hub_server import Hub

pytest.importorskip("huggingface_hub")


async def refusal(source: HubSource) -> FleetError:
    with pytest.raises(FleetError) as refused:
        await source.fetch(f"{REPO}@main", "", lambda _done, _total: None)
    return refused.value


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (429, {"Retry-After": "55"}, "limits how often it is asked.*: try again in 55 s.*HF_TOKEN"),
        (429, {"RateLimit": '"api";r=0;t=7'}, "limits how often.*: try again in 7 s"),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, "limits .* now; with HF_TOKEN"),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            r"refuses .* to the token that is here \(HF_TOKEN\): .*Invalid credentials",
        ),
        (403, {"X-Error-Code": "GatedRepo"}, "is gated: ask for access at the hub"),
        (403, {}, r"refuses .* to the token that is here \(HF_TOKEN\): 403"),
        (503, {}, "did not give .*503"),
    ],
)
async def test_a_refusal_says_what_to_do(hub: Hub, source: HubSource, status, headers, words):
    hub.push(REPO, {"tiny.gguf": WEIGHTS})
    hub.refusals = [(status, headers)] * 9

    refused = await refusal(source)

    assert refused.reason is Reason.SOURCE_UNAVAILABLE
    assert re.search(words, refused.message), refused.message
    assert "<html>" not in refused.message


async def test_a_limit_in_the_middle_is_waited_for(hub: Hub, source: HubSource):
    hub.push(REPO, {"tiny.gguf": WEIGHTS})

    class Limited(list[tuple[int, Mapping[str, str]]]):
        """One refusal, of the first request for a file."""

        def __bool__(self) -> bool:
            return "/resolve/" in hub.asked[-1].path and super().__len__() > 0

    hub.refusals = Limited([(429, {"Retry-After": "1"})])

    path = await source.fetch(f"{REPO}@main", "", lambda _done, _total: None)

    assert path.read_bytes() == WEIGHTS
    assert not list(hub.refusals)


async def test_a_repository_that_was_renamed_is_found_by_its_old_name(hub: Hub, source: HubSource):
    hub.push("acme/renamed", {"tiny.gguf": WEIGHTS})
    hub.moved = {REPO: "acme/renamed"}

    path = await source.fetch(f"{REPO}@main", "", lambda _done, _total: None)

    assert path.read_bytes() == WEIGHTS
    assert path == source.find(f"{REPO}@main", "")


async def test_a_storage_that_sends_all_again_does_not_spoil_what_is_here(
    hub: Hub, source: HubSource
):
    hub.push(REPO, {"huge.gguf": HUGE})
    hub.cut_after, hub.ignores_ranges = [14_000_000], True

    path = await source.fetch(f"{REPO}@main", "", lambda _done, _total: None)

    assert path.read_bytes() == HUGE
    assert len(hub.downloads()) > 1
