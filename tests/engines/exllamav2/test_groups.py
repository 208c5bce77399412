"""A model over the devices of a group: the library's own split, with memory that runs out."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from exllamav2.attn import ExLlamaV2Attention

from services.neuron.engine_api.engine import Engine
from services.neuron.engine_api.model import LoadFailed
from services.neuron.engines.exllamav2.model import loading
from tests.engines.exllamav2 import folders
from tests.engines.exllamav2.loading_models import load, said, task

pytestmark = pytest.mark.skipif(torch.version.cuda is not None, reason="devices are emulated")
PROMPTS = ["once upon a time", "the end of the road"]
SIZES: Any = {"max_context_tokens": 1024, "max_sequences": 2}


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices are visible; the first one is full behind two layers."""

    def properties(index: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(
            major=9,
            minor=0,
            multi_processor_count=132,
            uuid=f"device-{index}",
            total_memory=8 << 30,
        )

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    load_weights = ExLlamaV2Attention.load

    def load_or_run_out(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.device_idx == 0 and self.layer_idx >= 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return load_weights(self, *args, **kwargs)

    monkeypatch.setattr(ExLlamaV2Attention, "load", load_or_run_out)


def test_a_split_model_says_what_it_says_alone(
    engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = folders.build_random(tmp_path / "random", layers=4)
    whole = load(engine, place, **SIZES)
    alone = said(whole, *[task(prompt) for prompt in PROMPTS])
    whole.close()
    request.getfixturevalue("two_devices")

    split = load(engine, place, **SIZES)

    layers = [m for m in split._parts.model.modules if isinstance(m, ExLlamaV2Attention)]
    assert [module.device_idx for module in layers] == [0, 0, 1, 1]
    assert set(split.info.memory_bytes) == {"GPU-device-0", "GPU-device-1"}
    assert said(split, *[task(prompt) for prompt in PROMPTS]) == alone
    split.close()


@pytest.mark.usefixtures("two_devices")
def test_what_no_device_of_the_group_holds_is_out_of_memory(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(ExLlamaV2Attention, "load", full)

    with pytest.raises(LoadFailed) as failed:
        load(engine, folders.build_random(tmp_path / "random"), **SIZES)

    assert failed.value.reason == "OUT_OF_MEMORY"


@pytest.mark.usefixtures("two_devices")
def test_an_open_cache_that_does_not_fit_is_tried_smaller(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    load_weights = ExLlamaV2Attention.load

    def full_at_first(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(tried) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return load_weights(self, *args, **kwargs)

    monkeypatch.setattr(ExLlamaV2Attention, "load", full_at_first)
    open_model = loading._Loading.open_model

    def opened(self: Any, *args: Any) -> None:
        tried.append(self._shape.cache_tokens)
        open_model(self, *args)

    monkeypatch.setattr(loading._Loading, "open_model", opened)

    model = load(engine, folders.build_random(tmp_path / "random"), **SIZES)

    assert tried == [2048, 1792]
    assert model.info.cache_tokens == 1792
    model.close()
