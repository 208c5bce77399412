"""Writes a BERT encoder, as Hugging Face folders hold it, as the GGUF file that llama.cpp reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import gguf
import msgspec
import numpy as np

from services.neuron.weights import safetensors

_CONFIG: Final = "config.json"
_POOLING: Final = {
    "pooling_mode_mean_tokens": gguf.PoolingType.MEAN,
    "pooling_mode_cls_token": gguf.PoolingType.CLS,
    "pooling_mode_lasttoken": gguf.PoolingType.LAST,
}
_SPECIAL: Final = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_WORD_START: Final = "▁"
# Tensors of the training heads and of buffers; what makes the vectors does not read them.
_UNREAD: Final = ("pooler.", "cls.", "embeddings.position_ids")
# llama.cpp adds these to float32 rows; everything else with two dimensions multiplies in float16.
_KEPT_WIDE: Final = ("token_types.weight", "position_embd.weight")


class BadBertError(Exception):
    """The folder holds no BERT encoder that llama.cpp can compute."""


class BertConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a BERT's config.json that decides its arithmetic; names are Hugging Face's."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    vocab_size: int
    model_type: str
    layer_norm_eps: float = 1e-12
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    position_embedding_type: str = "absolute"


def convert(folder: Path, target: Path) -> None:
    """Writes the GGUF file: matrices in float16, the rest in float32.

    Args:
        folder: config.json, safetensors, vocab.txt or tokenizer.json, and, where the author says
            how vectors are pooled, 1_Pooling/config.json; mean pooling otherwise.
        target: the file; overwritten.

    Raises:
        BadBertError: a file is broken, or says something that llama.cpp does not compute.
        OSError: a file is missing or cannot be read, or the target cannot be written.
    """
    config = _config(folder)
    writer = gguf.GGUFWriter(target, "bert")
    try:
        _add_shape(writer, config)
        writer.add_pooling_type(_pooling(folder))
        _add_vocabulary(writer, folder, config)
        _add_tensors(writer, folder, config)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _config(folder: Path) -> BertConfig:
    try:
        config = msgspec.json.decode((folder / _CONFIG).read_bytes(), type=BertConfig)
    except msgspec.DecodeError as error:
        raise BadBertError(f"{_CONFIG}: {error}") from error
    for key, value, known in (
        ("model_type", config.model_type, "bert"),
        ("hidden_act", config.hidden_act, "gelu"),
        ("position_embedding_type", config.position_embedding_type, "absolute"),
    ):
        if value != known:
            raise BadBertError(f"{_CONFIG}: {key} is {value!r}; only {known!r} is supported")
    return config


def _add_shape(writer: gguf.GGUFWriter, config: BertConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_token_type_count(config.type_vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _pooling(folder: Path) -> gguf.PoolingType:
    """As sentence-transformers writes it down: a pooling stage, and no stage that computes more."""
    for stage in _object(folder / "modules.json", "[]"):
        kind = str(stage.get("type", "")).rpartition(".")[2]
        if kind not in {"Transformer", "Pooling", "Normalize"}:
            raise BadBertError(f"modules.json: a stage of type {kind} is not supported")
    modes = _object(folder / "1_Pooling" / _CONFIG, '{"pooling_mode_mean_tokens": true}')
    chosen = [name for name, value in modes.items() if name.startswith("pooling_mode_") and value]
    if len(chosen) != 1 or chosen[0] not in _POOLING:
        raise BadBertError(f"1_Pooling/{_CONFIG}: the pooling {chosen} is not supported")
    return _POOLING[chosen[0]]


def _add_vocabulary(writer: gguf.GGUFWriter, folder: Path, config: BertConfig) -> None:
    settings = _object(folder / "tokenizer_config.json", "{}")
    if not settings.get("do_lower_case", True):
        raise BadBertError("tokenizer_config.json: llama.cpp ignores letter case; this model heeds")
    pieces = _pieces(folder)
    if len(pieces) != config.vocab_size:
        raise BadBertError(f"{len(pieces)} word pieces, but vocab_size is {config.vocab_size}")
    special = {role: settings.get(f"{role}_token", word) for role, word in _SPECIAL.items()}
    missing = set(special.values()) - set(pieces)
    if missing:
        raise BadBertError(f"the vocabulary lacks {', '.join(sorted(missing))}")
    control = set(special.values())
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([_marked(piece, is_control=piece in control) for piece in pieces])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if p in control else gguf.TokenType.NORMAL for p in pieces]
    )
    ids = {role: pieces.index(word) for role, word in special.items()}
    writer.add_unk_token_id(ids["unk"])
    writer.add_pad_token_id(ids["pad"])
    writer.add_uint32("tokenizer.ggml.cls_token_id", ids["cls"])
    writer.add_bos_token_id(ids["cls"])
    writer.add_sep_token_id(ids["sep"])
    writer.add_eos_token_id(ids["sep"])
    writer.add_mask_token_id(ids["mask"])


def _pieces(folder: Path) -> list[str]:
    """The word pieces in the order of their ids."""
    listed = folder / "vocab.txt"
    if listed.is_file():
        try:
            return listed.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise BadBertError(f"vocab.txt: {error}") from error
    model = _object(folder / "tokenizer.json").get("model", {})
    if model.get("type", "WordPiece") != "WordPiece" or "vocab" not in model:
        raise BadBertError("tokenizer.json: no word pieces")
    return sorted(model["vocab"], key=model["vocab"].__getitem__)


def _marked(piece: str, *, is_control: bool) -> str:
    """BERT marks pieces within a word (`##s`); llama.cpp marks those that begin one (`▁cat`)."""
    if is_control or (piece.startswith("[") and piece.endswith("]")):
        return piece
    return piece.removeprefix("##") if piece.startswith("##") else f"{_WORD_START}{piece}"


def _add_tensors(writer: gguf.GGUFWriter, folder: Path, config: BertConfig) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    added: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            header = safetensors.read(path)
        except safetensors.BadSafetensorsError as error:
            raise BadBertError(f"{path.name}: {error}") from error
        for raw, tensor in header.tensors.items():
            bare = raw.removeprefix("bert.")
            if bare.startswith(_UNREAD):
                continue
            name = names.get_name(bare, try_suffixes=(".weight", ".bias"))
            if name is None or name in added:
                what = "none of BERT's" if name is None else "there twice"
                raise BadBertError(f"{path.name}: the tensor {raw} is {what}")
            added.add(name)
            writer.add_tensor(
                name, _values(path, raw, tensor, header.data_begin + tensor.data_offsets[0], name)
            )


def _values(
    path: Path, raw: str, tensor: safetensors.Tensor, offset: int, name: str
) -> np.ndarray[Any, Any]:
    reads: dict[str, np.dtype[Any]] = {
        "F32": np.dtype("<f4"),
        "F16": np.dtype("<f2"),
        "BF16": np.dtype("<u2"),
    }
    if tensor.dtype not in reads:
        raise BadBertError(f"{path.name}: {raw} is of type {tensor.dtype}")
    kind = reads[tensor.dtype]
    try:
        flat = np.fromfile(path, kind, count=tensor.size_bytes // kind.itemsize, offset=offset)
        if tensor.dtype == "BF16":  # the upper half of a float32
            flat = (flat.astype("<u4") << 16).view("<f4")
        whole = flat.reshape(tensor.shape)
    except ValueError as error:
        raise BadBertError(f"{path.name}: {raw}: {error}") from error
    is_matrix = whole.ndim > 1 and name not in _KEPT_WIDE
    return whole.astype(np.float16 if is_matrix else np.float32)


def _object(path: Path, default: str | None = None) -> Any:
    """A JSON file; the default where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if default is None:
            raise
        text = default
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadBertError(f"{path.name}: {error}") from error
