import subprocess
import sys

import pytest

from services.backplane.settings import SettingsError, load
from services.backplane.tracing import settings
from services.backplane.tracing.settings import tracing
from tests.doubles.otlp_collector import collecting

URL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
UNTOUCHED = """
import sys
import services.gateway.__main__, services.neuron.__main__, services.registry.__main__
from services.backplane.settings import load
from services.backplane.tracing.settings import tracing
with tracing(load(None, {}), "gateway") as tracer:
    assert tracer is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", UNTOUCHED], capture_output=True, text=True, timeout=60, check=False
    )

    assert ("[]\n", 0) == (done.stdout, done.returncode), done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {**URL, "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_nothing_is_traced_unless_a_collector_is_named(environment):
    with tracing(load(None, environment), "gateway") as tracer:
        assert tracer is None


def test_spans_go_to_the_collector_of_the_settings_when_the_tracer_ends():
    with collecting() as collector:
        environment = {"CORTEX_TELEMETRY__OTLP_ENDPOINT": f"{collector.url}/", **URL}
        with tracing(load(None, environment), "gateway") as tracer:
            assert tracer is not None
            span = tracer.start("work")
            span.attributes["count"] = 3
            span.error_type = "no_room"
            part = tracer.start("part", parent=span.context)
            part.note("step")
            tracer.end(part)
            tracer.end(span)

        sent, below = collector.named("work"), collector.named("part")
    assert ["cortex-gateway"] == [each.service for each in sent]
    assert (span.context.trace_id, span.context.span_id, "") == (
        sent[0].trace_id,
        sent[0].span_id,
        sent[0].parent,
    )
    assert {"count": 3, "error.type": "no_room"} == sent[0].attributes
    assert sent[0].is_error
    assert [(span.context.trace_id, span.context.span_id, ["step"])] == [
        (each.trace_id, each.parent, each.events) for each in below
    ]


def test_a_missing_library_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "services.backplane.tracing.otlp", None)
    document = load(None, {"CORTEX_TELEMETRY__OTLP_ENDPOINT": "http://127.0.0.1:1"})

    with pytest.raises(SettingsError, match=r"TELEMETRY__OTLP_ENDPOINT.*\[telemetry\]"):
        settings.tracing(document, "gateway").__enter__()


@pytest.mark.parametrize("value", ["localhost:4317", "grpc://a", "http://a b"])
def test_what_is_no_url_is_refused(value):
    document = load(None, {"CORTEX_TELEMETRY__OTLP_ENDPOINT": value})

    with pytest.raises(SettingsError, match="otlp_endpoint"):
        settings.tracing(document, "gateway").__enter__()
