from typing import Any

import pytest

from services.neuron.engine_api.model import LoadFailed
from services.neuron.engines.exllamav2.text import vocabulary

SPECIAL = {"id": 3, "content": "<|end|>", "special": True}
MARKER = {"id": 4, "content": "<think>", "special": False}
SPACES = {"id": 5, "content": "   ", "special": False}


def tokenizer(vocab: Any, decoder: Any, **more: Any) -> dict[str, Any]:
    return {"model": {"vocab": vocab}, "decoder": decoder, **more}


def test_gpt2_letters_are_bytes() -> None:
    read = vocabulary.read(tokenizer({"Ġhi": 0, "Ċ": 1, "Ã": 2}, {"type": "ByteLevel"}), size=3)

    assert read.pieces == (b" hi", b"\n", b"\xc3")


def test_a_byte_level_step_may_lie_inside_a_sequence() -> None:
    steps = {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}
    read = vocabulary.read(tokenizer({"Ġ": 0}, None, pre_tokenizer=steps), size=1)

    assert read.pieces == (b" ",)


def test_sentencepiece_writes_spaces_and_single_bytes() -> None:
    decoder = {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}]}
    read = vocabulary.read(tokenizer({"▁hi": 0, "<0x0A>": 1, "é": 2}, decoder), size=3)

    assert read.pieces == (b" hi", b"\n", "é".encode())


def test_unigram_lists_are_read() -> None:
    read = vocabulary.read(tokenizer([["<unk>", 0.0], ["▁a", -1.5]], {"type": "Metaspace"}), size=2)

    assert read.pieces == (b"<unk>", b" a")


def test_control_tokens_are_the_special_ones_and_the_markers() -> None:
    read = vocabulary.read(
        tokenizer({"a": 0}, {"type": "ByteLevel"}, added_tokens=[SPECIAL, MARKER, SPACES]), size=6
    )

    assert read.control == {"<|end|>": 3, "<think>": 4}
    assert read.special == {3}
    assert read.piece(3) == b"<|end|>"
    assert read.piece(5) == b"   "


@pytest.mark.parametrize(
    ("changed", "is_bytewise"),
    [
        ({}, True),
        ({"normalizer": {"type": "Sequence", "normalizers": []}}, True),
        ({"added_tokens": [MARKER]}, True),
        ({"normalizer": {"type": "NFC"}}, False),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Strip"}]}}, False),
        ({"truncation": {"max_length": 8}}, False),
        ({"pre_tokenizer": {"type": "Whitespace"}}, False),
        ({"pre_tokenizer": None}, False),
        ({"added_tokens": [{**MARKER, "rstrip": True}]}, False),
        ({"model": {"type": "Unigram"}}, False),
    ],
)
def test_only_what_leaves_text_as_it_is_is_bytewise(
    changed: dict[str, Any], is_bytewise: bool
) -> None:
    plain = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel"}}

    assert vocabulary.is_bytewise(plain | changed) is is_bytewise


def test_a_splitter_that_removes_is_not_bytewise() -> None:
    for behavior, is_bytewise in (("Isolated", True), ("Removed", False)):
        split = {"type": "Split", "behavior": behavior}
        steps = {"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel"}]}
        made = {"model": {"type": "BPE"}, "pre_tokenizer": steps}

        assert vocabulary.is_bytewise(made) is is_bytewise


def test_ids_that_no_token_has_are_empty() -> None:
    read = vocabulary.read(tokenizer({"a": 0}, {"type": "ByteLevel"}), size=4)

    assert len(read.pieces) == 4
    assert read.piece(2) == read.piece(99) == read.piece(-1) == b""


def test_a_file_without_vocabulary_is_refused() -> None:
    with pytest.raises(LoadFailed, match=r"model\.vocab"):
        vocabulary.read({}, size=1)
