"""Text to token ids with Hugging Face's `tokenizers`, control tokens only where they are meant.

The library finds added tokens in any text. So there are two of it: one for control segments, and
one whose file has lost all control tokens, for everything that a user may have written.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.model import LoadFailed
from services.neuron.engine_api.task import Prompt, Segment
from services.neuron.engines.common.prompt_tokens import joined_runs, min_token_counts, single_bytes
from services.neuron.engines.exllamav2.files.legacy_config import BAD
from services.neuron.engines.exllamav2.text import vocabulary


class Tokens:
    """A model's tokeniser. Safe to use from several threads: nothing changes after loading.

    Attributes:
        vocabulary: tokens as bytes, and the control tokens.
        size: ids from here on are refused.
        bos_id: None where the model has none.
        wants_bos: the model expects its BOS token before a prompt.
    """

    def __init__(self, path: pathlib.Path, *, size: int, bos_id: int | None) -> None:
        """Reads `tokenizer.json`.

        Args:
            path: the file.
            size: rows of the model's embedding.
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
        self._inside_control = re.compile(
            "|".join(
                rf"(?<={re.escape(text[0])})(?={re.escape(text[1:])})"
                for text in sorted(self.vocabulary.control, key=len, reverse=True)
                if len(text) > 1
            )
            or r"(?!)"
        )
        self._longest = max(map(len, self.vocabulary.pieces), default=1) or 1
        is_bytewise = vocabulary.is_bytewise(content)
        self._kept_bytes = single_bytes(self.vocabulary.pieces) if is_bytewise else b""
        self.size = size
        self.bos_id = bos_id
        framed = self._full.encode("a", add_special_tokens=True).ids
        self.wants_bos = bos_id is not None and framed[:1] == [bos_id]

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt.

        Raises:
            FleetError: BAD_REQUEST, a token id is not in the vocabulary.
        """
        if prompt.token_ids is not None:
            ids = list(prompt.token_ids)
            self._refuse_unknown(ids)
        else:
            ids = [i for run in joined_runs(prompt.segments) for i in self._segment(run)]
        if prompt.add_bos and self.wants_bos and ids[:1] != [self.bos_id]:
            assert self.bos_id is not None
            ids.insert(0, self.bos_id)
        return ids

    def min_token_counts(self, prompt: Prompt) -> Iterator[int]:
        """Numbers of tokens that a prompt has at least; see `LoadedModel.min_token_counts`."""
        return min_token_counts(
            prompt,
            count=lambda text: len(self.tokenize_plain(text.encode())),
            longest_token=self._longest,
            kept_bytes=self._kept_bytes,
        )

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

    def _segment(self, segment: Segment) -> list[int]:
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

    def _refuse_unknown(self, ids: list[int]) -> None:
        for position, token_id in enumerate(ids):
            if not 0 <= token_id < self.size:
                raise FleetError(
                    Reason.BAD_REQUEST,
                    f"Token id {token_id} is not in the vocabulary (0 to {self.size - 1}).",
                    field=f"token_ids.{position}",
                )


def _without_control(content: Mapping[str, Any]) -> dict[str, Any]:
    kept = [added for added in vocabulary.added_tokens(content) if not vocabulary.is_control(added)]
    # Its template names control tokens; plain text is never framed by them.
    return {**content, "added_tokens": kept, "post_processor": None}
