"""What a killed neuron had not told is counted to the microsecond."""

from collections.abc import Sequence

import pytest

from bench.simulate.device_time import Bookkeeping, Work, Works
from bench.simulate.fleet import SimulatedFleet
from bench.simulate.scenario import SMALL
from bench.simulate.world import Broken
from cortex.v1 import neuron_service_pb2 as neuron


def worked(works: Works, since: float, until: float) -> None:
    Work(works, "m", devices=3, now=since).answered_for(["ann", "bob"], until)


def test_what_was_written_before_the_kill_is_told_and_the_rest_is_not() -> None:
    books, works = Bookkeeping(), Works()
    worked(works, 0.0, 2.0)
    books.take("one", works.use.since(0))
    books.write()
    worked(works, 2.0, 9.0)
    works.killed.append(("one", works.use))

    assert books.untold([works]) == pytest.approx(3 * 7.0)


def test_what_a_registry_had_not_written_at_its_end_is_not_told() -> None:
    books, works = Bookkeeping(), Works()
    worked(works, 0.0, 2.0)
    books.take("one", works.use.since(0))
    books.registry_restarted()
    books.write()
    works.killed.append(("one", works.use))

    assert books.untold([works]) == pytest.approx(3 * 2.0)


def test_time_that_is_lost_without_a_kill_breaks_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Bookkeeping.take

    def take_less(self: Bookkeeping, incarnation: str, rows: Sequence[neuron.DeviceUse]) -> None:
        take(self, incarnation, rows[1:])

    monkeypatch.setattr(Bookkeeping, "take", take_less)

    fleet = SimulatedFleet(SMALL, 4)
    with pytest.raises(Broken, match="are charged"):
        fleet.run()
