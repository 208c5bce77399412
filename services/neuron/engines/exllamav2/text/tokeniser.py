"""Text to token ids with Hugging Face's `tokenizers`, control tokens only where they are meant.

The library finds added tokens in any text. So there are two of it: one for control segments, and
one whose file has lost all control tokens, for everything that a user may have written.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import tokenizers
from typing_extensions import override

from services.neuron.engine_api.model import LoadFailed
from services.neuron.engine_api.task import Segment
from services.neuron.engines.common.tokeniser import Tokeniser, split_points
from services.neuron.engines.exllamav2.files.legacy_config import BAD
from services.neuron.engines.exllamav2.text import vocabulary


class JsonTokeniser(Tokeniser):
    """The tokeniser of a model folder with a `tokenizer.json`.

    Attributes:
        vocabulary: tokens as bytes, and the control tokens.
        bos_id: the model's BOS token; None where it has none.
    """

    def __init__(self, path: pathlib.Path, *, size: int, bos_id: int | None) -> None:
        """Reads `tokenizer.json`.

        Args:
            path: the file.
            size: rows of the model's embedding; ids from here on are refused.
            bos_id: the model's BOS token.

        Raises:
            LoadFailed: the file cannot be read.
        """
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            self._full = tokenizers.Tokenizer.from_str(json.dumps(content))
            self._plain = tokenizers.Tokenizer.from_str(json.dumps(_without_control(content)))
        except Exception as error:  # the library raises plain Exception
            raise LoadFailed(BAD, f"{path}: {error}") from error
        self.vocabulary = vocabulary.read(content, size=size)
        self._control_ids = frozenset(self.vocabulary.control.values())
        self._inside_control = split_points(self.vocabulary.control)
        self.bos_id = bos_id
        wants_bos = self._full.encode("a", add_special_tokens=True).ids[:1] == [bos_id]
        super().__init__(
            size=size,
            leading_bos_id=bos_id if wants_bos else None,
            pieces=self.vocabulary.pieces,
            is_bytewise=vocabulary.is_bytewise(content),
        )

    @override
    def tokenize_plain(self, text: bytes) -> list[int]:
        """Token ids of text in which no control token is recognised."""
        decoded = text.decode("utf-8", "replace")
        ids = self._encode(decoded)
        if self._control_ids.isdisjoint(ids):
            return ids
        # Unigram models find any piece in plain text; cut in two, a control token is only text.
        return [i for part in self._inside_control.split(decoded) for i in self._encode(part)]

    def text(self, token_id: int | None) -> str:
        """A token as the vocabulary writes it; empty for None."""
        return (
            "" if token_id is None else self.vocabulary.piece(token_id).decode("utf-8", "replace")
        )

    @override
    def _segment_ids(self, segment: Segment) -> list[int]:
        if not segment.control:
            return self.tokenize_plain(segment.text.encode())
        known = self.vocabulary.control.get(segment.text)
        if known is not None:
            return [known]
        return list(self._full.encode(segment.text, add_special_tokens=False).ids)

    def _encode(self, text: str) -> list[int]:
        # Unlike `encode` it lets other threads run, and keeps no offsets: half the time.
        (encoded,) = self._plain.encode_batch_fast([text], add_special_tokens=False)
        return list(encoded.ids)


def _without_control(content: Mapping[str, Any]) -> dict[str, Any]:
    kept = [added for added in vocabulary.added_tokens(content) if not vocabulary.is_control(added)]
    # Its template names control tokens; plain text is never framed by them.
    return {**content, "added_tokens": kept, "post_processor": None}
