"""How memory grows, on drivers that can map it in place and on those that cannot."""

from types import SimpleNamespace
from typing import Any

import pytest

from services.neuron.engines.exllamav2.library import allocator


def fake_torch(*, can_map: bool = True, devices: int = 2, is_newer: bool = True) -> Any:
    """A torch whose allocator fails at the first allocation where the driver cannot map."""
    said: list[str] = []
    tried: list[str] = []

    def empty(_size: int, *, dtype: Any, device: str) -> None:
        assert dtype == "u8"
        tried.append(device)
        if said[-1].endswith("True") and not can_map:
            raise RuntimeError("CUDA driver error: operation not supported")

    core, memory = SimpleNamespace(), SimpleNamespace()
    if is_newer:
        core._accelerator_setAllocatorSettings = said.append
    else:
        memory._set_allocator_settings = said.append
    cuda = SimpleNamespace(
        memory=memory, is_available=lambda: devices > 0, device_count=lambda: devices,
        empty_cache=lambda: None,
    )  # fmt: skip
    return SimpleNamespace(_C=core, cuda=cuda, empty=empty, uint8="u8", said=said, tried=tried)


@pytest.mark.parametrize("is_newer", [True, False])
def test_memory_grows_in_place_where_every_device_can(is_newer: bool) -> None:
    torch = fake_torch(is_newer=is_newer)

    assert allocator.settle(torch) == allocator.EXPANDABLE
    assert torch.said == ["expandable_segments:True"]
    assert torch.tried == ["cuda:0", "cuda:1"]


def test_a_driver_that_cannot_gets_torchs_default_back() -> None:
    torch = fake_torch(can_map=False)

    assert allocator.settle(torch) == allocator.DEFAULT
    assert torch.said == ["expandable_segments:True", "expandable_segments:False"]


def test_without_a_device_nothing_is_tried() -> None:
    torch = fake_torch(devices=0)

    assert allocator.settle(torch) == allocator.DEFAULT
    assert not torch.said
