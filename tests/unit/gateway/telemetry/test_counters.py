"""Counts that reach Prometheus a few times a second."""

from prometheus_client import CollectorRegistry, Counter

from services.gateway.telemetry.counters import PendingCount, PendingHistogram, SummedHistogram


def test_a_count_is_told_when_it_is_settled_and_once():
    registry = CollectorRegistry()
    count = PendingCount(Counter("c_total", "", registry=registry))

    count.pending += 2
    before = registry.get_sample_value("c_total")
    count.settle()
    count.settle()

    assert before == 0
    assert registry.get_sample_value("c_total") == 2


def test_a_histogram_settles_to_what_prometheus_itself_would_count():
    bounds, values = (0.1, 1.0, 5.0), [7.0, 0.1, 0.05, 1.0, 0.5, 7.5, 5.0]
    registry = CollectorRegistry()
    ours = SummedHistogram("ours", "", buckets=bounds, registry=registry)
    theirs = SummedHistogram("theirs", "", buckets=bounds, registry=registry)
    pending = PendingHistogram(ours, bounds)

    for value in values:
        pending.note([value])
        theirs.observe(value)
    pending.settle()
    pending.settle()

    for name in ("bucket", "count", "sum"):
        for le in ("0.1", "1.0", "5.0", "+Inf") if name == "bucket" else (None,):
            labels = {"le": le} if le else {}
            told = [
                registry.get_sample_value(f"{who}_{name}", labels) for who in ("ours", "theirs")
            ]
            assert told[0] == told[1] is not None
