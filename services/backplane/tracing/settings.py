"""The `[telemetry]` section, and the tracer that it asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Annotated, Final

import msgspec

from services.backplane.settings import Document, SettingsError
from services.backplane.tracing.spans import Tracer

# The standard names, of which one has to be set: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_DISABLED: Final = "OTEL_SDK_DISABLED"

Url = Annotated[str, msgspec.Meta(pattern=r"^(https?://\S+)?$")]


class TelemetrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[telemetry]`: traces of requests, as OpenTelemetry collectors take them.

    Attributes:
        otlp_endpoint: of a collector that speaks OTLP over HTTP, such as `http://localhost:4318`;
            spans go to `/v1/traces` below it. Empty: as OTEL_EXPORTER_OTLP_ENDPOINT says, and where
            that is not set either, nothing is traced. The other OTEL variables (headers,
            certificate, resource) hold as well.
        sample_ratio: which part of the requests is traced that come without a `traceparent`; the
            others are where their caller traces them.
    """

    otlp_endpoint: Url = ""
    sample_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


@contextlib.contextmanager
def tracing(document: Document, service: str) -> Generator[Tracer | None]:
    """The tracer of a service while the context is open; None where nothing is traced.

    Args:
        document: has the section, and the environment.
        service: such as `gateway`.

    Raises:
        SettingsError: the section cannot be used, or the exporter is not installed.
    """
    settings = document.section("telemetry", TelemetrySettings)
    named = next((name for name in _ENDPOINTS if document.environment.get(name)), "")
    is_disabled = document.environment.get(_DISABLED, "").strip().lower() == "true"
    if is_disabled or not (settings.otlp_endpoint or named):
        yield None
        return
    try:
        from services.backplane.tracing.otlp import OtlpExporter
    except ModuleNotFoundError as missing:
        place = document.place("telemetry.otlp_endpoint") if settings.otlp_endpoint else named
        told = f"{place}: needs OpenTelemetry: pip install 'cortex-fleet[telemetry]'"
        raise SettingsError(told) from missing
    tracer = Tracer(
        OtlpExporter(service, endpoint=settings.otlp_endpoint), sample_ratio=settings.sample_ratio
    )
    try:
        yield tracer
    finally:
        tracer.close()
