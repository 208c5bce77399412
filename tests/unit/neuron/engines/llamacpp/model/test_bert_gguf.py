import json
from pathlib import Path
from typing import Any

import pytest

from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.model import LoadFailed
from services.neuron.engine_api.task import Prompt, Segment
from services.neuron.engines.llamacpp.model.bert_gguf import BadBertError, convert
from tests.doubles import bert_folder, tiny_bert
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel

TEXTS = ["the cat is a pet", "Money!", "dogs, stocks", "zebra", "the stock market of the cat"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_bert.build(tmp_path / "own.gguf")


@pytest.fixture
def folder(tmp_path: Path, source: Path) -> Path:
    return bert_folder.build(tmp_path / "bert", source)


def change(path: Path, **values: Any) -> None:
    old = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**old, **values}))


def embedded(model: LoadedModel) -> tuple[list[list[int]], list[list[float]]]:
    ids = [model.tokenize(Prompt((Segment(text),))) for text in TEXTS]
    return ids, model.embed(ids)


def farthest(left: list[list[float]], right: list[list[float]]) -> float:
    return max(
        abs(a - b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize(
    ("prefix", "dtype", "error"),
    [("", "F32", 2e-3), ("bert.", "F32", 2e-3), ("", "F16", 2e-3), ("", "BF16", 2e-2)],
)
def test_a_folder_embeds_as_its_gguf_file(
    load: LoadModel, tmp_path: Path, source: Path, prefix: str, dtype: str, error: float
) -> None:
    folder = bert_folder.build(tmp_path / "bert", source, prefix=prefix, dtype=dtype)

    ids, vectors = embedded(load(folder, embedding=True))

    own_ids, own = embedded(load(source, embedding=True))
    assert ids == own_ids
    assert farthest(vectors, own) < error
    assert farthest(vectors[:1], own[1:2]) > 0.1


def test_nothing_is_left_in_the_folder(load: LoadModel, folder: Path) -> None:
    before = sorted(folder.rglob("*"))

    load(folder, embedding=True)

    assert sorted(folder.rglob("*")) == before


def test_a_vocabulary_may_stand_in_the_tokenizer_file(load: LoadModel, folder: Path) -> None:
    before = embedded(load(folder, embedding=True))
    pieces = (folder / "vocab.txt").read_text().splitlines()
    vocabulary = {piece: number for number, piece in reversed(list(enumerate(pieces)))}
    change(folder / "tokenizer.json", model={"type": "WordPiece", "vocab": vocabulary})
    (folder / "vocab.txt").unlink()

    assert embedded(load(folder, embedding=True)) == before


def test_the_authors_pooling_is_kept(load: LoadModel, folder: Path) -> None:
    _, mean = embedded(load(folder, embedding=True))
    change(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=True)
    _, told = embedded(load(folder, embedding=True))
    change(
        folder / "1_Pooling" / "config.json",
        pooling_mode_mean_tokens=False,
        pooling_mode_cls_token=True,
    )
    _, first = embedded(load(folder, embedding=True))

    assert told == mean
    assert farthest(mean, first) > 0.01


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("config.json", {"model_type": "roberta"}, "roberta"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act"),
        ("config.json", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("config.json", {"hidden_size": "wide"}, "hidden_size"),
        ("config.json", {"vocab_size": 7}, "vocab_size is 7"),
        ("config.json", {"num_hidden_layers": 1}, "none of BERT's"),
        ("tokenizer_config.json", {"do_lower_case": False}, "letter case"),
        ("tokenizer_config.json", {"mask_token": "<mask>"}, "lacks <mask>"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode_max"),
    ],
)
def test_what_llama_cpp_would_compute_wrongly_is_refused(
    folder: Path, file: str, values: dict[str, Any], words: str
) -> None:
    change(folder / file, **values)

    with pytest.raises(BadBertError, match=words):
        convert(folder, folder / "out")


def test_a_stage_that_computes_more_is_refused(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')

    with pytest.raises(BadBertError, match="Dense"):
        convert(folder, folder / "out")


def test_a_second_copy_of_the_tensors_is_refused(folder: Path) -> None:
    (folder / "more.safetensors").write_bytes((folder / "model.safetensors").read_bytes())

    with pytest.raises(BadBertError, match="twice"):
        convert(folder, folder / "out")


@pytest.mark.parametrize("kept", [4, 30, -100])
def test_a_cut_file_fails_the_load(load: LoadModel, folder: Path, kept: int) -> None:
    tensors = folder / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:kept])

    with pytest.raises(LoadFailed) as caught:
        load(folder, embedding=True)

    assert caught.value.reason == "MODEL_FILE_BAD"
    assert "bert: model.safetensors" in str(caught.value)


def test_a_folder_without_a_vocabulary_fails_the_load(load: LoadModel, folder: Path) -> None:
    (folder / "vocab.txt").unlink()

    with pytest.raises(LoadFailed, match=r"tokenizer\.json"):
        load(folder, embedding=True)
