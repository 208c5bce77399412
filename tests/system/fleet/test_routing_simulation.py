"""Agents on several instances, by the gateway's own choice."""

from __future__ import annotations

import argparse
import statistics

from bench.routing.__main__ import Run


def test_prompts_are_read_once_and_the_instances_share_the_work() -> None:
    asked = argparse.Namespace(
        cache_tokens=262_144, replicas=8, gateways=1, seconds=600.0, seed=3, silent=False
    )

    run = Run(asked, agents=48)

    instances = run.instances.values()
    served = [instance.served for instance in instances]
    assert sum(i.reused_tokens for i in instances) / run.oracle_tokens >= 0.92
    assert max(served) / statistics.mean(served) <= 1.15
