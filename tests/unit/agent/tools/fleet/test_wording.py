import pytest

from services.agent.tools.fleet import wording

DEVICE = {"id": "cuda:0", "free": 3 * 2**30, "total": 24 * 2**30, "quarantine": ""}
INSTANCE = {
    "model": "large", "state": "ready", "reason": "", "active": 2, "places": 8, "queued": 1,
}  # fmt: skip
NEURON = {
    "name": "one", "state": "cordoned", "devices": [DEVICE], "problems": ["a disk is full"],
    "instances": [INSTANCE],
}  # fmt: skip
WAITING = {"model": "small", "waiters": 3, "problem": "", "step": None}


def test_the_fleet_is_told_in_a_line_for_each_thing():
    told = wording.status(
        {
            "neurons": [NEURON],
            "models": [{"model": "large"}, {"model": "small"}],
            "pending": {"placements": [WAITING, {**WAITING, "problem": "no file"}]},
            "registry": {"followed": False},
        }
    )

    assert told.split("\n") == [
        "one: cordoned; cuda:0 3 GiB of 24 GiB free",
        "  problem: a disk is full",
        "  large: ready; 2 of 8 places in use, 1 wait",
        "Not loaded: small",
        "Waited for: small by 3: waits",
        "Waited for: small by 3: no file",
        "The registry cannot be reached: this is the fleet as it was seen last.",
    ]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"kind": "placed", "neuron": "n", "instance": "i"}, "loaded on n as i"),
        ({"kind": "evicting", "neuron": "n", "victims": ["a", "b"]}, "makes room on n: unloads a, b"),
        (
            {"kind": "loading", "neuron": "n",
             "progress": {"phase": "weights", "bytes_done": 1, "bytes_total": 4}},
            "loads on n: weights, 25%",
        ),
        ({"kind": "queued", "position": 2, "reason": "full"}, "waits, 2 before it: full"),
        ({"instances_left": 1, "active_requests_left": 4}, "1 instances and 4 requests left"),
    ],
)  # fmt: skip
def test_a_step_is_told_in_words(step: dict[str, object], told: str):
    assert told == wording.step(step)


def test_bytes_are_told_in_the_largest_unit():
    assert ["900 B", "1 KiB", "1.5 GiB"] == [wording.size(n) for n in (900, 1024, 3 * 2**29)]
