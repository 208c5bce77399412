"""Some of the swaps that `python -m bench.simulate.swaps` runs by the thousand."""

from __future__ import annotations

import pathlib

import pytest

from bench.simulate import swaps
from bench.simulate.world import Broken


@pytest.mark.parametrize("key", [None, bytes(32)], ids=["plain", "sealed"])
def test_bounds_hold_and_nobody_gets_what_is_anothers(key: bytes | None) -> None:
    seen = swaps.run(60, seed=7, key=key)

    assert seen["swaps"] == 60
    assert seen["restored"] > 10


def test_what_is_another_ones_is_found_out(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = swaps.Swaps(tmp_path, seed=7)
    for _ in range(5):
        simulated.swap()
    whose = iter(range(1_000_000))
    monkeypatch.setattr(swaps, "_state", lambda *_: str(next(whose)).encode() * 100)

    with pytest.raises(Broken, match="another one's state"):
        _swap_again(simulated, 100)


def _swap_again(simulated: swaps.Swaps, times: int) -> None:
    for _ in range(times):
        simulated.swap()
