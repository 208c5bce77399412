"""Weights on this machine's disk: which files make a model, and what is there to load.

Everything here reads the disk and may block; the daemon calls it from a thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.weights import gguf, labels, safetensors, untrusted
from services.neuron.weights.fingerprint import fingerprint
from services.neuron.weights.gguf_reader import BadGgufError
from services.neuron.weights.layer_bytes import NO_LAYERS, LayerBytes, tallied
from services.neuron.weights.tensor_shape import UNKNOWN, TensorShape

CONFIG: Final = "config.json"
PART: Final = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})$")
"""A GGUF file may be split; whoever reads the first part reads them all."""
_COMPANION: Final = re.compile(
    r"(?:^|[-_.])mmproj(?:[-_.]|$)|^imatrix[-_.]|[-_.]imatrix\.gguf$", re.IGNORECASE
)
_LARGEST_CONFIG_BYTES: Final = 8 << 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """What is known of one model's files without an engine: format, sizes, trained context.

    Attributes:
        path: a GGUF file, or a folder with safetensors and a config.json.
        format: `gguf`, `safetensors`, `exl2`, `gptq`; `bert` is an encoder in safetensors.
        bytes: on disk, in all.
        architecture: empty where it cannot be told.
        max_context_tokens: as trained; 0 where it cannot be told.
        cache_bytes_per_token: of keys and values in fp16; 0 where it cannot be told.
        layers: of a GGUF model; 0 where it cannot be told.
        is_embedder: it makes vectors instead of text.
        files: what the weights themselves lie in.
        quantization: `Q4_K_M`, `BF16`, `4bit`; empty where it cannot be told.
        parameter_size: `135M`, `8x7B`; empty where it cannot be told.
        has_chat_template: False of a GGUF file that says nothing of chats.
        tensor_shape: among how many GPUs its layers can be divided.
        layer_bytes: what the layers of a GGUF model take.
    """

    path: pathlib.Path
    format: str
    bytes: int
    architecture: str = ""
    max_context_tokens: int = 0
    cache_bytes_per_token: int = 0
    layers: int = 0
    is_embedder: bool = False
    files: tuple[pathlib.Path, ...] = ()
    quantization: str = ""
    parameter_size: str = ""
    has_chat_template: bool = True
    tensor_shape: TensorShape = UNKNOWN
    layer_bytes: LayerBytes = NO_LAYERS


def inspect(path: pathlib.Path, *, quant: str = "") -> Weights:
    """The weights at a path.

    Args:
        path: a GGUF file, or a folder that holds one model.
        quant: which of several GGUF files, by a part of its name; letter case does not count.

    Raises:
        FleetError: MODEL_UNKNOWN, nothing is there; MODEL_FILE_BAD, it is no model; BAD_REQUEST,
            there are several and `quant` names none or more than one.
    """
    try:
        if path.is_dir():
            return _folder(path, quant)
        return _gguf(path)
    except FileNotFoundError as error:
        missing = pathlib.Path(error.filename or path).name
        raise FleetError(Reason.MODEL_UNKNOWN, f"There is no file {missing} here.") from error
    except BadGgufError as error:
        raise FleetError(Reason.MODEL_FILE_BAD, f"{error}.") from error
    except OSError as error:
        raise FleetError(
            Reason.MODEL_FILE_BAD, f"{path.name} cannot be read: {error.strerror}."
        ) from error
    except FleetError:
        raise
    except Exception as error:  # whatever lies in a models folder, the neuron goes on
        said = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise FleetError(
            Reason.MODEL_FILE_BAD, f"{path.name} cannot be read: {said[:200]}."
        ) from error


def is_model_file(name: str) -> bool:
    """Whether a GGUF file of this name holds a model, and not what goes with one.

    That is its vision projector, and the matrix that it was quantised by. Names are told before
    there is a file; of one that is here its header has the last word.
    """
    return name.endswith(".gguf") and not _COMPANION.search(name)


def described(name: str, weights: Weights) -> model.StoredModel:
    """One model's files as the contract shows them.

    What cannot be read any more is left out: the files may go while they are being listed.
    """
    made = model.StoredModel(
        model=name,
        source=f"path:{weights.path}",
        bytes=weights.bytes,
        format=weights.format,
        architecture=weights.architecture,
        max_context_tokens=weights.max_context_tokens,
        capabilities=capabilities(
            is_embedder=weights.is_embedder, has_chat_template=weights.has_chat_template
        ),
        quantization=weights.quantization,
        parameter_size=weights.parameter_size,
        cache_bytes_per_token=weights.cache_bytes_per_token,
    )
    with contextlib.suppress(OSError, ValueError):
        made.modified_at.FromNanoseconds(max(path.stat().st_mtime_ns for path in weights.files))
        made.fingerprint = fingerprint(weights.files)
    return made


def capabilities(
    *, is_embedder: bool, has_chat_template: bool = True
) -> list[model.Capability.ValueType]:
    """What a model can do as far as its files tell: embed, else complete and chat."""
    if is_embedder:
        return [model.CAPABILITY_EMBEDDING]
    if not has_chat_template:
        return [model.CAPABILITY_COMPLETION]
    return [model.CAPABILITY_CHAT, model.CAPABILITY_COMPLETION]


def pick(files: Sequence[pathlib.Path], quant: str) -> pathlib.Path:
    """The one GGUF file that `quant` names.

    Raises:
        FleetError: BAD_REQUEST, it names none or several.
    """
    matching = [path for path in files if quant.lower() in path.name.lower()]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(sorted(path.name for path in files))
    wanted = f"{quant!r} names {len(matching)}" if quant else "none is named"
    raise FleetError(
        Reason.BAD_REQUEST, f"There are several files and {wanted}: {names}.", field="spec.quant"
    )


def _folder(path: pathlib.Path, quant: str) -> Weights:
    ggufs = first_parts(sorted(each for each in path.rglob("*.gguf") if is_model_file(each.name)))
    if len(ggufs) == 1 and not quant:
        return _gguf(ggufs[0])
    if ggufs:
        return _gguf(pick(ggufs, quant))
    tensors = sorted(path.glob("*.safetensors"))
    if not tensors or not (path / CONFIG).is_file():
        raise FleetError(Reason.MODEL_FILE_BAD, f"There is no model in {path.name}.")
    return _safetensors(path, tensors)


def _gguf(path: pathlib.Path) -> Weights:
    header = gguf.read(path)
    parts = parts_of(path)
    if header.parts > len(parts):
        raise BadGgufError(
            f"{path.name} is a part of a model of {header.parts} parts, which has to keep the name"
            f" that it was given (…-00001-of-{header.parts:05}.gguf) and stay a file of its own"
        )
    _require_whole(parts[0], header.whole_bytes)
    tensors = list(header.tensors)
    for part in parts[1:]:
        least_bytes, more = gguf.part(part)
        _require_whole(part, least_bytes)
        tensors += more
    return Weights(
        path=path,
        format="gguf",
        bytes=sum(part.stat().st_size for part in parts),
        architecture=header.architecture,
        max_context_tokens=header.max_context_tokens,
        cache_bytes_per_token=header.cache_bytes_per_token,
        layers=header.layers,
        is_embedder=header.is_embedder,
        files=tuple(parts),
        quantization=header.quantization,
        parameter_size=header.parameter_size,
        has_chat_template=header.has_chat_template,
        layer_bytes=tallied(tensors),
    )


def _require_whole(path: pathlib.Path, least_bytes: int) -> None:
    """Refuses a file that is still being copied, or that was cut short."""
    size = path.stat().st_size
    if size < least_bytes:
        raise BadGgufError(f"{path.name} is not whole: it has {size} of {least_bytes} bytes")


def first_parts(files: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The files without the later parts of split ones."""
    parts = [(path, PART.search(path.stem)) for path in files]
    return [path for path, part in parts if part is None or int(part["number"]) == 1]


def without_first(files: Sequence[pathlib.Path]) -> list[str]:
    """A line for each split model of which later parts are among these files, and not the first."""
    lost: dict[pathlib.Path, pathlib.Path] = {}
    for path in files:
        part = PART.search(path.stem)
        if part is not None and int(part["number"]) > 1:
            first = path.with_name(f"{path.stem[: part.start()]}-00001-of-{part['count']}.gguf")
            lost.setdefault(first, path)
    here = set(files)
    return [
        f"{path.name} is a part of a model whose first part, {first.name}, is not here."
        for first, path in lost.items()
        if first not in here
    ]


def parts_of(first: pathlib.Path) -> list[pathlib.Path]:
    """All parts of a GGUF file; of most there is one."""
    part = PART.search(first.stem) if first.suffix == ".gguf" else None
    if part is None:
        return [first]
    count = int(part["count"])
    stem = first.stem[: part.start()]
    return [
        first.with_name(f"{stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)
    ]


def _safetensors(path: pathlib.Path, files: Sequence[pathlib.Path]) -> Weights:
    text = untrusted.text_of(path / CONFIG, most_bytes=_LARGEST_CONFIG_BYTES)
    made = of_config(path, text, sum(file.stat().st_size for file in files))
    # of quantised ones the numbers in the files are not the parameters
    count = safetensors.count(files) if made.format == "safetensors" else 0
    return dataclasses.replace(made, files=tuple(files), parameter_size=labels.size_of(count))


def of_config(path: pathlib.Path, text: str, size: int) -> Weights:
    """What a `config.json` says of the weights beside it.

    Args:
        path: the model's folder.
        text: of the file.
        size: of all weights together, in bytes.

    Raises:
        FleetError: MODEL_FILE_BAD, it says nothing that can be read.
    """
    try:
        config = json.loads(text)
        names = config.get("architectures") or [""]
        is_bert = config.get("model_type") == "bert"
        config |= config.get("text_config") or {}  # of a model that sees

        def number(key: str, otherwise: int = 0) -> int:
            return untrusted.whole(key, config.get(key) or otherwise)

        heads = number("num_attention_heads", 1)
        kv_heads = number("num_key_value_heads", heads)
        width = number("head_dim", number("hidden_size") // heads)
        cache = 2 * number("num_hidden_layers") * kv_heads * width * 2
        untrusted.whole("its cache", cache, most=untrusted.MOST_BYTES)
        context = number("max_position_embeddings")
        told = (config.get("quantization_config") or {}).get("quant_method", "safetensors")
        method = untrusted.word(told)
        quantization = untrusted.word(labels.of_config(config))
        architecture = untrusted.word(names[0])
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
        raise FleetError(
            Reason.MODEL_FILE_BAD, f"{path.name}/{CONFIG} cannot be read: {str(error)[:200]}."
        ) from error
    return Weights(
        path=path,
        format="bert" if is_bert else method,
        bytes=size,
        architecture=architecture,
        max_context_tokens=context,
        cache_bytes_per_token=0 if is_bert else cache,  # an encoder keeps nothing between texts
        is_embedder=is_bert,
        quantization=quantization,
        tensor_shape=TensorShape.of_config(config, "bert" if is_bert else method),
    )
