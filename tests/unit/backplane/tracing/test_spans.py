import pytest

from services.backplane.tracing.spans import SpanContext, Tracer, read_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Kept:
    def __init__(self):
        self.spans = []
        self.is_closed = False

    def take(self, span):
        self.spans.append(span)

    def close(self):
        self.is_closed = True


def test_a_traceparent_is_read_as_it_is_written():
    for is_sampled in (True, False):
        context = SpanContext(TRACE, SPAN, is_sampled)

        assert context == read_traceparent(context.traceparent)


def test_a_later_version_may_say_more():
    assert SpanContext(TRACE, SPAN, is_sampled=True) == read_traceparent(f"01-{TRACE}-{SPAN}-09-x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_what_is_no_traceparent_is_none(text):
    assert read_traceparent(text) is None


def test_a_span_is_part_of_its_parents_trace():
    kept = Kept()
    tracer = Tracer(kept)
    root = tracer.start("root")
    part = tracer.start("part", parent=root.context, started_at=5.0)
    part.note("step", at=6.0, count=2)
    tracer.end(part, 7.0)
    tracer.end(root)

    assert [part, root] == kept.spans
    assert (root.context.trace_id, root.context) == (part.context.trace_id, part.parent)
    assert part.context.span_id != root.context.span_id
    assert (5.0, 7.0) == (part.started_at, part.ended_at)
    assert root.parent is None


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (1.0, 50)])
def test_so_many_traces_are_recorded(ratio, count):
    kept = Kept()
    tracer = Tracer(kept, sample_ratio=ratio)
    for _ in range(50):
        tracer.end(tracer.start("root"))

    assert count == len(kept.spans)


@pytest.mark.parametrize("is_sampled", [True, False])
def test_a_parent_decides_whether_its_parts_are_recorded(is_sampled):
    kept = Kept()
    tracer = Tracer(kept, sample_ratio=0.5)
    for _ in range(20):
        tracer.end(tracer.start("part", parent=SpanContext(TRACE, SPAN, is_sampled)))

    assert 20 * is_sampled == len(kept.spans)


def test_closing_closes_the_exporter():
    kept = Kept()
    Tracer(kept).close()

    assert kept.is_closed
