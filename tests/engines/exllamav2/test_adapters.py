"""LoRA adapters: what they change, and which are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.neuron.engine_api.engine import Engine
from services.neuron.engine_api.model import LoadFailed
from services.neuron.engines.exllamav2.model import adapters
from tests.engines.exllamav2 import quantised_folders
from tests.engines.exllamav2.loading_models import load, said, task

AT = "base_model.model.model.layers.0.self_attn.q_proj"


def adapter(folder: Path, *, width: int = 64, at: str = AT, **settings: Any) -> Path:
    """An adapter of rank 4 for one projection."""
    from safetensors.numpy import save_file

    folder.mkdir()
    random = np.random.default_rng(5)
    halves = {"A": (4, width), "B": (64, 4)}
    tensors = {
        f"{at}.lora_{half}.weight": random.standard_normal(size).astype(np.float16)
        for half, size in halves.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"r": 4, "lora_alpha": 8, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_changes_what_is_said(loaded: Any, tmp_path: Path) -> None:
    (plain,) = said(loaded(), task("adapt "))
    place = adapter(tmp_path / "adapter")

    model = loaded(adapter_paths=(str(place),))
    (adapted,) = said(model, task("adapt "))

    assert adapted != plain
    assert model.info.facts["adapters"] == "adapter"


def test_an_adapter_of_no_weight_changes_nothing(loaded: Any, tmp_path: Path) -> None:
    (plain,) = said(loaded(), task("adapt "))
    place = adapter(tmp_path / "adapter", lora_alpha=0)

    assert said(loaded(adapter_paths=(str(place),)), task("adapt ")) == [plain]


def test_two_adapters_add_up(loaded: Any, tmp_path: Path) -> None:
    one = adapter(tmp_path / "one")
    other = adapter(tmp_path / "other", at=AT.replace("q_proj", "o_proj"))
    alone = [said(loaded(adapter_paths=(str(p),)), task("adapt ")) for p in (one, other)]

    both = said(loaded(adapter_paths=(str(one), str(other))), task("adapt "))

    assert both not in alone


def test_a_quantised_model_takes_one_too(loaded: Any, folder: Path, tmp_path: Path) -> None:
    small, dense = quantised_folders.write(folder, tmp_path / "small", quantised_folders.exl2)
    paths = (str(adapter(tmp_path / "adapter")),)
    plain = said(loaded(small), task("adapt "))

    adapted = said(loaded(small, adapter_paths=paths), task("adapt "))

    assert adapted == said(loaded(dense, adapter_paths=paths), task("adapt "))
    assert adapted != plain


def test_its_bytes_are_counted(tmp_path: Path) -> None:
    place = adapter(tmp_path / "adapter")

    assert adapters.size(str(place)) == 2 * (4 * 64 + 64 * 4)


@pytest.mark.parametrize(
    ("fields", "reason", "told"),
    [
        ({"width": 32}, "LOAD_FAILED", "does not fit the model: .*incompatible tensor shape"),
        ({"at": AT.replace("layers.0", "layers.7")}, "LOAD_FAILED", "the model has no .*layers.7"),
        ({"at": AT.replace("q_proj", "qkv")}, "LOAD_FAILED", "the model has no .*qkv"),
        ({"fan_in_fan_out": True}, "LOAD_FAILED", "fan_in_fan_out"),
        ({"use_dora": True}, "MODEL_FILE_BAD", "DoRA"),
        ({"r": None}, "MODEL_FILE_BAD", "no rank"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    engine: Engine, folder: Path, tmp_path: Path, fields: dict[str, Any], reason: str, told: str
) -> None:
    place = adapter(tmp_path / "adapter", **fields)

    with pytest.raises(LoadFailed, match=told) as caught:
        load(engine, folder, adapter_paths=(str(place),))

    assert caught.value.reason == reason
    assert str(place) in caught.value.message


def test_a_broken_file_is_named(engine: Engine, folder: Path, tmp_path: Path) -> None:
    place = adapter(tmp_path / "adapter")
    file = place / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])

    with pytest.raises(LoadFailed, match=r"adapter_model\.safetensors: has .* bytes"):
        load(engine, folder, adapter_paths=(str(place),))


def test_a_pickled_one_is_not_opened(engine: Engine, folder: Path, tmp_path: Path) -> None:
    place = adapter(tmp_path / "adapter")
    (place / "adapter_model.safetensors").rename(place / "adapter_model.bin")

    with pytest.raises(LoadFailed, match=r"adapter_model\.safetensors is missing"):
        load(engine, folder, adapter_paths=(str(place),))


def test_a_missing_adapter_is_named(engine: Engine, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="nowhere"):
        load(engine, folder, adapter_paths=(str(tmp_path / "nowhere"),))
