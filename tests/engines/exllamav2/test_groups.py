"""A model over the devices of a group: the library's own split, with memory that runs out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from exllamav2.attn import ExLlamaV2Attention
from exllamav2.linear import ExLlamaV2Linear
from exllamav2.mlp import ExLlamaV2MLP
from exllamav2.rmsnorm import ExLlamaV2RMSNorm

from services.neuron.engine_api.engine import Engine
from services.neuron.engine_api.model import LoadFailed
from services.neuron.engine_api.task import SamplingParams
from services.neuron.engines.exllamav2.model import loading
from tests.engines.exllamav2 import folders
from tests.engines.exllamav2.loading_models import load, said, task
from tests.engines.exllamav2.tagged_devices import Devices, several

pytestmark = pytest.mark.skipif(torch.version.cuda is not None, reason="devices are emulated")
PROMPTS = ["once upon a time", "the end of the road"]
HOT = SamplingParams(temperature=1.2, seed=3)
SIZES: Any = {"max_context_tokens": 1024, "max_sequences": 2}


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[Devices]:
    """Two devices are visible, and tensors know on which of them they lie."""
    with several(monkeypatch) as devices:
        yield devices


def full_from(monkeypatch: pytest.MonkeyPatch, module: int) -> None:
    """The first device has room for so many modules of a model and half of the next one."""
    loads = {kind: kind.load for kind in KINDS}

    def load_or_run_out(self: Any, *args: Any, **kwargs: Any) -> Any:
        loaded = loads[type(self)](self, *args, **kwargs)
        # Layers load their matrices by themselves; those have no place in the model's list.
        at = self.model.modules.index(self) if self in self.model.modules else 0
        if self.device_idx == 0 and at >= module and len(self.model.modules) > SMALL:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return loaded

    for kind in KINDS:
        monkeypatch.setattr(kind, "load", load_or_run_out)


LAYERS = 4
KINDS = (ExLlamaV2Attention, ExLlamaV2MLP, ExLlamaV2RMSNorm, ExLlamaV2Linear)
SMALL = 6
"""Modules of a model of one layer, a draft model here, at most: it has room on the first device."""


def test_tensors_of_two_devices_do_not_mix(two_devices: Devices) -> None:
    one, other = (torch.ones(3, device=f"cuda:{index}") for index in range(2))

    with pytest.raises(RuntimeError, match="same device"):
        _ = one + other
    with pytest.raises(RuntimeError, match="same device"):
        _ = torch.cat([one, torch.ones(3)])
    with pytest.raises(TypeError, match="numpy"):
        one.numpy()
    moved = one.to("cuda:1")
    moved += other
    assert moved.device == (moved * 2)[1:].view(2, 1).device == torch.device("cuda:1")
    assert one.tolist() == [1, 1, 1]  # a copy, not the same memory
    assert two_devices.moves == 1


@pytest.mark.parametrize(
    ("module", "fields"),
    [
        (1, {}),  # nothing but the embedding fits
        (4, {}),  # within a layer: behind its attention
        (5, {}),
        (2 * LAYERS + 1, {}),  # the last norm
        (2 * LAYERS + 2, {}),  # the head
        (5, {"cache_format": "q4"}),
        (5, {"ngram_draft": True}),
        (5, {"draft": True}),
    ],
    ids=repr,
)
def test_a_split_model_says_what_it_says_alone(
    engine: Engine,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    module: int,
    fields: dict[str, Any],
) -> None:
    place = folders.build_random(tmp_path / "random", layers=LAYERS)
    if fields.pop("draft", False):
        fields = {"draft_path": str(folders.build_random(tmp_path / "draft", layers=1))}
    whole = load(engine, place, **SIZES, **fields)
    alone = said(whole, *[task(prompt) for prompt in PROMPTS])
    hot = said(whole, task(PROMPTS[0], sampling=HOT))
    whole.close()
    devices: Devices = request.getfixturevalue("two_devices")
    full_from(monkeypatch, module)

    split = load(engine, place, **SIZES, **fields)

    modules = split._parts.model.modules
    assert [one.device_idx for one in modules[1:]] == [
        int(at >= module) for at in range(1, len(modules))
    ]
    for layer in [one for one in modules if isinstance(one, ExLlamaV2Attention)]:
        lies_on = devices.of(split._parts.cache.key_states[layer.layer_idx])
        assert lies_on == layer.device_idx == devices.of(layer.q_proj.linear.weight)
    if split._parts.draft_model is not None:
        assert {one.device_idx for one in split._parts.draft_model.modules[1:]} == {0}
        assert {devices.of(keys) for keys in split._parts.draft_cache.key_states} == {0}
    assert set(split.info.memory_bytes) == {"GPU-device-0", "GPU-device-1"}
    assert said(split, *[task(prompt) for prompt in PROMPTS]) == alone
    assert said(split, task(PROMPTS[0], sampling=HOT)) == hot
    assert devices.moves > 0
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
