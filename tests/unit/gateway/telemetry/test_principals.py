"""Counters by principal have a bound."""

from prometheus_client import CollectorRegistry

from cortex.v1 import accounting_service_pb2 as pb
from services.gateway.telemetry.principals import PrincipalMetrics


def test_what_a_principal_used_is_counted():
    registry = CollectorRegistry()
    metrics = PrincipalMetrics(registry)

    metrics.add([pb.UsageRow(principal="ada", requests=2, prompt_tokens=7, completion_tokens=3)])

    def sample(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"cortex_gateway_principal_{name}_total", labels)

    assert sample("requests", principal="ada") == 2
    assert sample("tokens", principal="ada", kind="prompt") == 7
    assert sample("tokens", principal="ada", kind="completion") == 3


def test_principals_beyond_the_first_few_hundred_share_one_series():
    registry = CollectorRegistry()
    metrics = PrincipalMetrics(registry)

    metrics.add([pb.UsageRow(principal=f"p{index}", requests=1) for index in range(1000)])

    requests = "cortex_gateway_principal_requests_total"
    assert registry.get_sample_value(requests, {"principal": "(others)"}) == 800
    assert registry.get_sample_value(requests, {"principal": "p199"}) == 1
    assert registry.get_sample_value(requests, {"principal": "p200"}) is None
