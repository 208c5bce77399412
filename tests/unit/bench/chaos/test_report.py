"""What is forgiven: a killed gateway's own answers, and nothing else."""

import pytest

from bench.chaos.faults import CUT, KILL, POSTGRES, Fault, every
from bench.chaos.parts import SERVICES
from bench.chaos.report import Row, table
from bench.traffic.exchange import Exchange, Outcome


def row(fault: Fault, *outcomes: Outcome) -> Row:
    made = [Exchange("k", "text", began=0.0) for _ in outcomes]
    for one, outcome in zip(made, outcomes, strict=True):
        one.outcome = outcome
    return Row(fault, made, answered=0.5)


@pytest.mark.parametrize(
    ("outcome", "by_gateway", "by_neuron"),
    [
        (Outcome.WHOLE, 0, 0),
        (Outcome.CUT, 0, 1),
        (Outcome.TOLD, 0, 1),
        (Outcome.REFUSED, 1, 1),
        (Outcome.UNREACHED, 1, 1),
        (Outcome.SILENT, 1, 1),
        (Outcome.WRONG, 1, 1),
    ],
)
def test_only_the_answers_of_a_killed_gateway_are_forgiven(
    outcome: Outcome, by_gateway: int, by_neuron: int
) -> None:
    assert by_gateway == row(Fault(KILL, "gateway-1"), outcome).unforgiven()
    assert by_neuron == row(Fault(KILL, "left"), outcome).unforgiven()


def test_every_process_has_its_turn_in_every_way() -> None:
    faults = every()

    assert {Fault(KILL, name) for name in SERVICES} <= set(faults)
    assert {Fault(CUT, name) for name in (*SERVICES, POSTGRES)} <= set(faults)
    assert len(faults) == len(set(faults))


def test_the_table_adds_up() -> None:
    rows = [row(Fault(KILL, "left"), Outcome.WHOLE, Outcome.CUT)] * 2

    assert "| left killed | 1 | – | – | – | 1 | – | – | 0.5 | never | 0.0 |" in table(rows)
    assert "| **all** | **2** | **0** | **0** | **0** | **2** |" in table(rows)
