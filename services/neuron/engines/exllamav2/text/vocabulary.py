"""Tokens as bytes, read from `tokenizer.json` without the library that it is made for.

Pure. Three ways of writing bytes as token text are known: GPT-2's byte alphabet, SentencePiece's
`▁` with `<0x0A>` for single bytes, and plain text.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from services.neuron.engine_api.model import LoadFailed
from services.neuron.engines.common.tokeniser import is_marker
from services.neuron.engines.exllamav2.files.legacy_config import BAD

_BYTE: Final = re.compile(r"^<0x([0-9A-Fa-f]{2})>$")
_PRINTABLE: Final = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, others from U+0100 on."""
    others = [byte for byte in range(256) if byte not in _PRINTABLE]
    table = {chr(byte): byte for byte in _PRINTABLE}
    return table | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTE_ALPHABET: Final[Mapping[str, int]] = _byte_alphabet()


@dataclasses.dataclass(frozen=True, slots=True)
class Vocabulary:
    """All tokens of a model.

    Attributes:
        pieces: every token's own bytes, by id; control tokens by their written form; empty for
            ids that no token has.
        control: written form of every control token and marker to its id.
        special: tokens that are no text for a constraint.
    """

    pieces: tuple[bytes, ...]
    control: Mapping[str, int]
    special: frozenset[int]

    def piece(self, token_id: int) -> bytes:
        """A token's own bytes; empty for ids that no token has."""
        return self.pieces[token_id] if 0 <= token_id < len(self.pieces) else b""


def read(tokenizer: Mapping[str, Any], *, size: int) -> Vocabulary:
    """Reads a parsed `tokenizer.json`.

    Args:
        tokenizer: the parsed file.
        size: rows of the model's embedding; ids beyond the file's own get no bytes.

    Raises:
        LoadFailed: the file has no vocabulary.
    """
    decode = _decoder(tokenizer)
    pieces: dict[int, bytes] = {i: decode(text) for text, i in _entries(tokenizer)}
    control: dict[str, int] = {}
    special: set[int] = set()
    for added in added_tokens(tokenizer):
        pieces[added["id"]] = added["content"].encode()
        if is_control(added):
            control[added["content"]] = added["id"]
        if added.get("special"):
            special.add(added["id"])
    count = max(size, max(pieces, default=-1) + 1)
    table = tuple(pieces.get(i, b"") for i in range(count))
    return Vocabulary(table, control, frozenset(special))


def added_tokens(tokenizer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tokens that are found in text before it is tokenised."""
    return cast("list[dict[str, Any]]", tokenizer.get("added_tokens") or [])


def is_control(added: Mapping[str, Any]) -> bool:
    """True for what a chat template writes and a user must not: special tokens and `<markers>`."""
    return bool(added.get("special")) or is_marker(added["content"])


def is_bytewise(tokenizer: Mapping[str, Any]) -> bool:
    """True if a text is tokenised byte by byte as it is: nothing is normalised or left out."""
    model: Mapping[str, Any] = tokenizer.get("model") or {}
    added = added_tokens(tokenizer)
    return (
        model.get("type") == "BPE"
        and set(_kinds(tokenizer.get("normalizer"))) <= {"Sequence"}
        and not tokenizer.get("truncation")
        and "ByteLevel" in _kinds(tokenizer.get("pre_tokenizer"))
        and set(_kinds(tokenizer.get("pre_tokenizer"))) <= {"Sequence", "Split", "ByteLevel"}
        and '"Removed"' not in json.dumps(tokenizer.get("pre_tokenizer"))
        and not any(token.get("lstrip") or token.get("rstrip") for token in added)
    )


def _entries(tokenizer: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    model: Any = tokenizer.get("model") or {}
    vocabulary: Any = model.get("vocab")
    if isinstance(vocabulary, dict):  # BPE, WordPiece
        yield from cast("dict[str, int]", vocabulary).items()
    elif isinstance(vocabulary, list):  # Unigram: pairs of text and score
        for i, pair in enumerate(cast("list[list[Any]]", vocabulary)):
            yield str(pair[0]), i
    else:
        raise LoadFailed(BAD, "tokenizer.json: model.vocab: missing.")


def _decoder(tokenizer: Mapping[str, Any]) -> Any:
    kinds = set(_kinds(tokenizer.get("decoder"))) | set(_kinds(tokenizer.get("pre_tokenizer")))
    if "ByteLevel" in kinds:
        return _from_byte_alphabet
    return _from_sentencepiece if kinds & {"Metaspace", "ByteFallback"} else str.encode


def _kinds(node: Any) -> Iterator[str]:
    """The types of a component and of those inside it."""
    if not isinstance(node, dict):
        return
    component = cast("dict[str, Any]", node)
    yield str(component.get("type"))
    for key in ("decoders", "normalizers", "pretokenizers"):
        for child in cast("list[Any]", component.get(key) or []):
            yield from _kinds(child)


def _from_byte_alphabet(text: str) -> bytes:
    if all(character in BYTE_ALPHABET for character in text):
        return bytes(BYTE_ALPHABET[character] for character in text)
    return text.encode()


def _from_sentencepiece(text: str) -> bytes:
    byte = _BYTE.match(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()
