"""A model's tokens: their bytes, which of them are special, and how text becomes ids."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Final

from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.task import Segment
from services.neuron.engines.common.tokeniser import Tokeniser, is_marker, split_points
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.metadata import Metadata
from services.neuron.engines.llamacpp.library.structs import i32

# enum llama_token_attr
_CONTROL: Final = 1 << 3
_USER_DEFINED: Final = 1 << 4
_STRIPS: Final = 1 << 7 | 1 << 8
# enum llama_vocab_type
_NO_VOCABULARY: Final = 0
_SENTENCEPIECE: Final = 1
_BYTE_LEVEL: Final = 2
_WORD_PIECES: Final = 3


class GgufTokeniser(Tokeniser):
    """The tokens of one loaded GGUF file, and llama.cpp's own way from text to them.

    Attributes:
        pieces: every token's own bytes, by id; control tokens by their written form.
        control_tokens: written form of every control token and marker to its id.
        end_ids: tokens that end a turn.
        bos_id, eos_id: -1 where the model has none.
        lacks_frame: it would frame texts with a token that it does not have; llama.cpp then ends
            the process at the first text.
    """

    def __init__(self, library: Library, model: int, *, adds_special: bool = False) -> None:
        """Reads all tokens: about 1 µs each.

        Args:
            library: llama.cpp.
            model: the loaded model, which must outlive this object.
            adds_special: embedding models frame every text by their own tokens ([CLS], [SEP]).
        """
        self._library = library
        self._vocab: int = library.model_get_vocab(model)
        self._adds_special = adds_special
        size: int = library.vocab_n_tokens(self._vocab)
        kind: int = library.vocab_type(self._vocab)
        self.is_missing: bool = kind == _NO_VOCABULARY
        ids = range(0 if self.is_missing else size)
        attributes = [library.vocab_get_attr(self._vocab, i) for i in ids]
        eos_id: int = library.vocab_eos(self._vocab)
        self.bos_id = self._meant(model, "bos", library.vocab_bos(self._vocab), attributes)
        self.eos_id = self._meant(model, "eos", eos_id, attributes)
        self.lacks_frame: bool = adds_special and self._lacks_frame(
            is_word_pieces=kind == _WORD_PIECES
        )
        wants_bos: bool = library.vocab_get_add_bos(self._vocab) and self.bos_id >= 0
        self.pieces = self._read_pieces(ids)
        ends = frozenset(i for i in ids if library.vocab_is_eog(self._vocab, i))
        self.end_ids = ends if self.eos_id == eos_id else ends - {eos_id}
        self.control_tokens = {
            self.text(i): i
            for i, attribute in enumerate(attributes)
            if self._is_special(i, attribute)
        }
        self._marker_texts = tuple(
            text for text, i in self.control_tokens.items() if attributes[i] & _USER_DEFINED
        )
        self._inside_markers = split_points(self._marker_texts)
        super().__init__(
            size=size,
            leading_bos_id=self.bos_id if wants_bos and not adds_special else None,
            pieces=self.pieces,
            is_bytewise=kind in {_SENTENCEPIECE, _BYTE_LEVEL} and not _strips(attributes),
        )

    def _meant(self, model: int, name: str, token_id: int, attributes: Sequence[int]) -> int:
        """A special token's id; -1 where the file names none, and llama.cpp takes a letter for it.

        Its default is a number that was right for one vocabulary of long ago: in others it is a
        comma, at which every answer would end.
        """
        told = Metadata(self._library, model).number(f"tokenizer.ggml.{name}_token_id")
        if not 0 <= token_id < len(attributes) or told == token_id:
            return token_id
        return token_id if attributes[token_id] & (_CONTROL | _USER_DEFINED) else -1

    def _lacks_frame(self, *, is_word_pieces: bool) -> bool:
        adds = self._library
        wanted = [
            (is_word_pieces or adds.vocab_get_add_bos(self._vocab), self.bos_id),
            (not is_word_pieces and adds.vocab_get_add_eos(self._vocab), self.eos_id),
            (is_word_pieces, adds.vocab_sep(self._vocab)),
        ]
        return any(is_wanted and token_id < 0 for is_wanted, token_id in wanted)

    def text(self, token_id: int) -> str:
        """A token as the vocabulary writes it; empty for -1."""
        if token_id < 0:
            return ""
        raw: bytes = self._library.vocab_get_text(self._vocab, token_id)
        return raw.decode("utf-8", "replace")

    def piece(self, token_id: int) -> bytes:
        """A token's own bytes."""
        return self.pieces[token_id]

    @override
    def tokenize_plain(self, text: bytes) -> list[int]:
        """Token ids of text in which no control token is recognised."""
        return self._ids(text, parse_special=False)

    @override
    def _segment_ids(self, segment: Segment) -> list[int]:
        if segment.control:
            known = self.control_tokens.get(segment.text)
            return (
                [known]
                if known is not None
                else self._ids(segment.text.encode(), parse_special=True)
            )
        if not any(text in segment.text for text in self._marker_texts):
            return self._ids(segment.text.encode(), parse_special=False)
        # llama.cpp finds user-defined tokens even in plain text; cut in two they are only text.
        return [
            i
            for part in self._inside_markers.split(segment.text)
            for i in self._ids(part.encode(), parse_special=False)
        ]

    def _ids(self, text: bytes, *, parse_special: bool) -> list[int]:
        if not text and not self._adds_special:
            return []
        room = len(text) + 8
        buffer = (i32 * room)()
        count: int = self._library.tokenize(
            self._vocab, text, len(text), buffer, room, self._adds_special, parse_special
        )
        if count < 0:
            raise FleetError(Reason.BAD_REQUEST, "The text cannot be tokenised.")
        return buffer[:count]

    def _read_pieces(self, ids: range) -> list[bytes]:
        room = 256
        buffer = ctypes.create_string_buffer(room)
        pieces: list[bytes] = []
        for token_id in ids:
            count: int = self._library.token_to_piece(self._vocab, token_id, buffer, room, 0, True)
            if count < 0:
                room = -count
                buffer = ctypes.create_string_buffer(room)
                count = self._library.token_to_piece(self._vocab, token_id, buffer, room, 0, True)
            pieces.append(ctypes.string_at(buffer, count))
        return pieces

    def _is_special(self, token_id: int, attribute: int) -> bool:
        if attribute & _CONTROL or token_id in self.end_ids:
            return True
        return bool(attribute & _USER_DEFINED) and is_marker(self.text(token_id))


def _strips(attributes: Iterable[int]) -> bool:
    """True if a token that is found in plain text takes the blanks around it away."""
    return any(each & _USER_DEFINED and each & _STRIPS for each in attributes)
