from __future__ import annotations

import pathlib

import pytest

from services.backplane.errors import FleetError, Reason
from services.neuron.sources.hub_files import HubFile, HubModel, model_path


def files(*paths: str) -> list[HubFile]:
    return [HubFile(path, 1) for path in paths]


def chosen(paths: list[str], *, glob: str = "", quant: str = "") -> set[str]:
    wanted = HubModel("acme", "tiny", "main", glob)
    return {file.path for file in wanted.choose(files(*paths), quant)}


QUANTS = ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q4_K.gguf", "m-Q8_0.gguf"]
SPLIT = ["q/m-Q8_0-00001-of-00002.gguf", "q/m-Q8_0-00002-of-00002.gguf"]
# parts that are called alike, as some repositories have them
FOLDERS = [f"{q}/m-0000{n}-of-00002.gguf" for q in ("Q4_K_M", "Q8_0") for n in (1, 2)]
TENSORS = ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"]


def test_a_location_names_a_revision_and_files():
    assert HubModel.parse("a/b@4.0bpw") == HubModel("a", "b", "4.0bpw")
    assert HubModel.parse("a/b@main/q/*.gguf") == HubModel("a", "b", "main", "q/*.gguf")


@pytest.mark.parametrize(
    "text", ["", "a/b", "a@main", "a/b@", "a/../b@main", "a/b@../x", "a b/c@d"]
)
def test_what_is_no_model_of_a_hub_is_refused(text):
    with pytest.raises(FleetError) as refused:
        HubModel.parse(text)

    assert refused.value.field == "spec.source"


@pytest.mark.parametrize(
    ("paths", "choice", "expected"),
    [
        (QUANTS, {"quant": "q4_k_m"}, {"m-Q4_K_M.gguf"}),
        (QUANTS, {"quant": "Q4_K"}, {"m-Q4_K.gguf"}),
        (QUANTS, {"quant": "Q8"}, {"m-Q8_0.gguf"}),
        (["m.gguf", "mmproj-m.gguf", "README.md"], {}, {"m.gguf"}),
        (SPLIT, {}, set(SPLIT)),
        ([*SPLIT, *QUANTS], {"glob": "q/*"}, set(SPLIT)),
        ([*SPLIT, *QUANTS], {"glob": "q"}, set(SPLIT)),
        (FOLDERS, {"quant": "q4_k_m"}, set(FOLDERS[:2])),
        ([*SPLIT, "imatrix.gguf", "a-mmproj-f16.gguf"], {}, set(SPLIT)),
        (QUANTS, {"glob": "*Q4*", "quant": "q4_k_s"}, {"m-Q4_K_S.gguf"}),
        ([*TENSORS, "consolidated.safetensors", "original/a.safetensors"], {}, set(TENSORS)),
        ([*TENSORS, "1_Pooling/config.json"], {}, {*TENSORS, "1_Pooling/config.json"}),
        ([*TENSORS, "m-Q8_0.gguf"], {}, set(TENSORS)),
        ([*TENSORS, "m-Q8_0.gguf"], {"quant": "Q8_0"}, {"m-Q8_0.gguf"}),
        (["adapter_config.json", "adapter_model.safetensors"], {},
         {"adapter_config.json", "adapter_model.safetensors"}),
        ([*TENSORS, "../escape.json", "/etc/x.json", "a\\b.json"], {}, set(TENSORS)),
        ([*TENSORS, ".listing.json", "a\0.json", "..json", ""], {}, set(TENSORS)),
    ],
)  # fmt: skip
def test_the_files_of_one_model_are_chosen(paths, choice, expected):
    assert chosen(paths, **choice) == expected


@pytest.mark.parametrize(
    ("paths", "choice", "reason"),
    [
        (QUANTS, {}, Reason.BAD_REQUEST),
        (FOLDERS, {}, Reason.BAD_REQUEST),
        (QUANTS, {"quant": "Q4"}, Reason.BAD_REQUEST),
        (QUANTS, {"quant": "Q5"}, Reason.BAD_REQUEST),
        (["README.md", "model.safetensors"], {}, Reason.MODEL_UNKNOWN),
        (QUANTS, {"glob": "*.safetensors"}, Reason.MODEL_UNKNOWN),
        (["../m.gguf"], {"glob": "*.gguf"}, Reason.MODEL_UNKNOWN),
    ],
)
def test_what_is_not_one_model_says_so(paths, choice, reason):
    with pytest.raises(FleetError) as refused:
        chosen(paths, **choice)

    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["m.gguf"], "m.gguf"),
        (SPLIT, SPLIT[0]),
        (QUANTS, "."),
        (TENSORS, "."),
        (["8bpw/config.json", "8bpw/model.safetensors"], "8bpw"),
    ],
)
def test_an_engine_is_given_a_file_or_a_folder(paths, expected):
    folder = pathlib.Path("store")

    assert model_path(folder, files(*paths)) == folder / expected
