import math
from pathlib import Path

import pytest
from gguf import PoolingType

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.model import LoadFailed
from services.neuron.engine_api.task import Prompt, Segment, Task
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.structs import Batch
from tests.doubles import scripted, tiny_bert
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel


@pytest.fixture
def bert(load: LoadModel, tmp_path: Path) -> LoadedModel:
    return load(tiny_bert.build(tmp_path / "b.gguf"), embedding=True, max_sequences=3)


def ids(model: LoadedModel, *texts: str) -> list[list[int]]:
    return [model.tokenize(Prompt((Segment(text),))) for text in texts]


def cosine(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_vectors_have_length_one(bert: LoadedModel) -> None:
    vectors = bert.embed(ids(bert, "the cat", "money"))

    assert [len(vector) for vector in vectors] == [tiny_bert.WIDTH] * 2
    assert all(math.isclose(cosine(v, v), 1.0, rel_tol=1e-5) for v in vectors)


def test_a_text_has_one_vector_alone_and_in_company(bert: LoadedModel) -> None:
    texts = ids(bert, "the cat is a pet", "money", "dog dog dog", "stock market", "the dog")

    together = bert.embed(texts)

    for text, vector in zip(texts, together, strict=True):
        assert cosine(vector, bert.embed([text])[0]) > 0.999
    assert cosine(together[0], together[1]) < 0.99


def test_many_texts_come_in_order(bert: LoadedModel) -> None:
    texts = ids(bert, *["cat dog", "money"] * 20)

    vectors = bert.embed(texts)

    assert len(vectors) == 40
    assert all(cosine(vectors[0], v) > 0.999 for v in vectors[::2])
    assert all(cosine(vectors[1], v) > 0.999 for v in vectors[1::2])


def test_a_text_that_is_too_long_is_refused_with_numbers(bert: LoadedModel) -> None:
    with pytest.raises(FleetError) as caught:
        bert.embed(ids(bert, "cat " * 100))

    assert caught.value.reason is Reason.CONTEXT_TOO_LONG
    assert caught.value.facts == {"prompt_tokens": "102", "max_context_tokens": "64"}


def test_no_tokens_are_refused(bert: LoadedModel) -> None:
    with pytest.raises(FleetError, match="empty"):
        bert.embed([[]])


def test_it_does_not_generate(bert: LoadedModel) -> None:
    task = Task(1, "i", Prompt((Segment("the cat"),)))

    bert.submit(task, [2, 3])

    (event,) = bert.step()
    assert getattr(event, "reason", None) == "WRONG_MODALITY"


def test_a_generator_may_be_loaded_to_embed(load: LoadModel, tmp_path: Path) -> None:
    model = load(scripted.build(tmp_path / "s.gguf"), embedding=True)

    (vector,) = model.embed(ids(model, "hello"))

    assert len(vector) == model.info.embedding_size == 128


def test_a_generator_does_not_embed(load: LoadModel, tmp_path: Path) -> None:
    model = load(scripted.build(tmp_path / "s.gguf"), max_context_tokens=256)

    with pytest.raises(FleetError) as caught:
        model.embed([[1, 2]])

    assert caught.value.reason is Reason.WRONG_MODALITY


def test_texts_that_are_refused_together_are_embedded_one_by_one(
    bert: LoadedModel, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ids(bert, "the cat", "money", "dog dog")
    expected = bert.embed(texts)
    genuine, most = library.decode, max(len(text) for text in texts)

    def decode(context: int, batch: Batch) -> int:
        return -2 if batch.n_tokens > most else int(genuine(context, batch))

    monkeypatch.setattr(library, "decode", decode)

    vectors = bert.embed(texts)

    assert all(cosine(*pair) > 0.999 for pair in zip(vectors, expected, strict=True))


def test_a_text_that_is_refused_alone_is_an_error_of_its_call(
    bert: LoadedModel, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(_: int, __: Batch) -> int:
        return -2

    with monkeypatch.context() as patch:
        patch.setattr(library, "decode", decode)
        with pytest.raises(FleetError, match="no memory to compute with") as caught:
            bert.embed(ids(bert, "the cat", "money"))

    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert len(bert.embed(ids(bert, "the cat"))) == 1


def test_a_file_that_does_not_say_how_it_pools_pools_by_the_mean(
    load: LoadModel, tmp_path: Path, bert: LoadedModel
) -> None:
    path = tiny_bert.build(tmp_path / "none.gguf", pooling=PoolingType.NONE)
    silent = load(path, embedding=True, max_sequences=3)

    (vector,), (mean,) = silent.embed(ids(silent, "the cat")), bert.embed(ids(bert, "the cat"))

    assert cosine(vector, mean) > 0.999


def test_a_reranker_is_not_loaded_to_make_vectors(load: LoadModel, tmp_path: Path) -> None:
    path = tiny_bert.build(tmp_path / "rank.gguf", pooling=PoolingType.RANK)

    with pytest.raises(LoadFailed, match=r"rank\.gguf is a reranker"):
        load(path, embedding=True)


@pytest.mark.parametrize("name", ["bos_token_id", "seperator_token_id"])
def test_a_tokenizer_that_cannot_frame_a_text_is_a_bad_file(
    load: LoadModel, tmp_path: Path, name: str
) -> None:
    data = tiny_bert.build(tmp_path / "b.gguf").read_bytes()
    key = f"tokenizer.ggml.{name}".encode()
    at = data.index(key) + len(key) + 4  # behind the type of its value
    path = tmp_path / "unframed.gguf"
    path.write_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])

    with pytest.raises(LoadFailed, match="no token to begin or end a text") as failed:
        load(path, embedding=True)

    assert failed.value.reason == "MODEL_FILE_BAD"
