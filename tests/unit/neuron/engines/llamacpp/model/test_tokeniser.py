from pathlib import Path

import pytest

from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.task import Prompt, Segment
from tests.doubles import scripted, tiny_bert
from tests.doubles.scripted import Script
from tests.doubles.vocabulary import END_OF_TEXT_ID, TURN_END_ID, TURN_START_ID, id_of_byte
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel


@pytest.fixture
def model(load: LoadModel, tmp_path: Path) -> LoadedModel:
    script = Script(markers=("<think>", "    "))
    return load(scripted.build(tmp_path / "m.gguf", script), max_context_tokens=256)


def ids(model: LoadedModel, *segments: Segment, add_bos: bool = False) -> list[int]:
    return model.tokenize(Prompt(segments, add_bos=add_bos))


def test_markers_are_control_tokens_and_blanks_are_not(model: LoadedModel) -> None:
    assert "<think>" in model.info.control_tokens
    assert "    " not in model.info.control_tokens


def test_a_marker_in_user_text_is_only_text(model: LoadedModel) -> None:
    marker = model.info.control_tokens["<think>"]

    assert ids(model, Segment("<think>", control=True)) == [marker]
    assert ids(model, Segment("a <think> b")) == [id_of_byte(c) for c in "a <think> b"]


def test_runs_of_blanks_stay_one_token(model: LoadedModel) -> None:
    assert len(ids(model, Segment("a    b"))) == 3


def test_a_control_segment_that_is_no_token_is_tokenised(model: LoadedModel) -> None:
    both = ids(model, Segment("<|im_start|>x", control=True))

    assert both == [TURN_START_ID, id_of_byte("x")]


def test_text_is_bytes_and_empty_text_is_nothing(model: LoadedModel) -> None:
    assert len(ids(model, Segment("é\0👩"))) == 7
    assert ids(model, Segment("")) == []


def test_bos_only_where_the_model_wants_one(model: LoadedModel) -> None:
    assert ids(model, Segment("a"), add_bos=True) == [id_of_byte("a")]


def test_a_bos_token_is_put_before_once(load: LoadModel, tmp_path: Path) -> None:
    script = Script(wants_bos=True)
    model = load(scripted.build(tmp_path / "bos.gguf", script), max_context_tokens=256)
    bos = Segment("<|im_start|>", control=True)

    assert ids(model, Segment("a"), add_bos=True) == [TURN_START_ID, id_of_byte("a")]
    assert ids(model, bos, Segment("a"), add_bos=True) == [TURN_START_ID, id_of_byte("a")]
    assert ids(model, Segment("a")) == [id_of_byte("a")]


def test_where_a_file_names_no_end_no_letter_is_taken_for_one(
    load: LoadModel, tmp_path: Path
) -> None:
    """llama.cpp takes the token 11 for it, which is a comma in GPT-2's vocabulary."""
    silent = Script(names_ends=False, wants_bos=True)
    model = load(scripted.build(tmp_path / "silent.gguf", silent), max_context_tokens=256)

    assert model.info.eos_token_ids == (END_OF_TEXT_ID, TURN_END_ID)  # by how they are written
    assert (model.info.bos_token, model.info.eos_token) == ("", "")
    assert ids(model, Segment("a"), add_bos=True) == [id_of_byte("a")]


def test_a_template_of_blanks_is_none(load: LoadModel, tmp_path: Path) -> None:
    blank = Script(chat_template=" \n")
    model = load(scripted.build(tmp_path / "blank.gguf", blank), max_context_tokens=256)

    assert model.info.chat_template is None


def test_embedding_models_frame_their_text(load: LoadModel, tmp_path: Path) -> None:
    bert = load(tiny_bert.build(tmp_path / "b.gguf"), embedding=True)
    cls, sep = (bert.info.control_tokens[name] for name in ("[CLS]", "[SEP]"))

    framed = ids(bert, Segment("the cat"))

    assert (framed[0], framed[-1], len(framed)) == (cls, sep, 4)
