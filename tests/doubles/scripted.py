"""A 300 KB Llama that says what a test chose, at thousands of tokens per second.

Its blocks add nothing, so the next token depends on the last one alone, and the output matrix holds
a table of successors. Keys and values are really computed, so that slots, prefix reuse and batching
are exercised.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np

from tests.doubles.vocabulary import CHATML, TURN_END_ID, Vocabulary, id_of_byte

_HEADS = 4
_FEED_FORWARD = 32
_GAIN = 12.0
_START = 0  # the dimension that says: this is a letter, so the first word comes next


@dataclasses.dataclass(frozen=True, kw_only=True)
class Script:
    """What the model says.

    Attributes:
        words: its tokens, in order; each is one token, all different, none a single byte. After
            any letter or end of line comes the first word; after the last one the end of the turn.
        is_endless: the last word is followed by the first one.
        context: longest context in tokens.
        markers: user-defined tokens (`<think>`), never said.
        width: of the embedding; more tokens need more to stay apart.
        name: of the model.
        sampling: advice in the file (`temp`, `top_k`, `top_p`, `min_p`, `penalty_repeat`).
        chat_template: Jinja source.
        wants_bos: prompts begin with `<|im_start|>`, which is its BOS token.
        names_ends: the file says which tokens begin and end a text.
    """

    words: Sequence[str | bytes] = ("Hello", " from", " model", " bravo")
    is_endless: bool = False
    context: int = 4096
    markers: Sequence[str] = ()
    width: int = 128
    name: str = "scripted"
    sampling: Mapping[str, float] = dataclasses.field(default_factory=dict)
    chat_template: str | None = CHATML
    wants_bos: bool = False
    names_ends: bool = True
    seed: int = 0

    @property
    def text(self) -> str:
        """What it says in one turn."""
        parts = [w.encode() if isinstance(w, str) else w for w in self.words]
        return b"".join(parts).decode("utf-8", "replace")


def build(path: Path, script: Script | None = None) -> Path:
    """Writes the model and returns its path."""
    script = script or Script()
    vocabulary = Vocabulary(script.words, script.markers)
    embedding, output = _tables(script, vocabulary)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(script.name)
    writer.add_context_length(script.context)
    writer.add_embedding_length(script.width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(script.width // _HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for key, value in script.sampling.items():
        if key == "top_k":
            writer.add_int32("general.sampling.top_k", int(value))
        else:
            writer.add_float32(f"general.sampling.{key}", value)
    vocabulary.write(
        writer, script.chat_template, wants_bos=script.wants_bos, names_ends=script.names_ends
    )
    _add_tensors(writer, script, embedding, output)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tables(script: Script, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(script.seed)
    embedding = random.standard_normal((len(vocabulary), script.width))
    embedding[:, _START] = 0
    first, *_ = vocabulary.word_ids
    letters = slice(id_of_byte("\0"), first)
    embedding[letters, 1:] *= 0.3
    embedding[letters, _START] = np.sqrt(script.width)
    embedding /= np.sqrt((embedding**2).mean(axis=1, keepdims=True))
    output = np.zeros_like(embedding)
    output[first, _START] += _GAIN / np.sqrt(script.width) * 1.1
    chain = [*vocabulary.word_ids, first if script.is_endless else TURN_END_ID]
    for token, successor in itertools.pairwise(chain):
        output[successor] += embedding[token] * _GAIN / script.width
    return embedding, output


def _add_tensors(
    writer: gguf.GGUFWriter, script: Script, embedding: np.ndarray, output: np.ndarray
) -> None:
    width = script.width
    random = np.random.default_rng(script.seed + 1)

    def half(name: str, values: np.ndarray) -> None:
        writer.add_tensor(name, np.asarray(values, np.float16))

    half("token_embd.weight", embedding)
    half("output.weight", output)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    for name in ("q", "k", "v"):
        half(f"blk.0.attn_{name}.weight", random.standard_normal((width, width)) / width**0.5)
    half("blk.0.attn_output.weight", np.zeros((width, width)))
    half("blk.0.ffn_gate.weight", np.zeros((_FEED_FORWARD, width)))
    half("blk.0.ffn_up.weight", np.zeros((_FEED_FORWARD, width)))
    half("blk.0.ffn_down.weight", np.zeros((width, _FEED_FORWARD)))
