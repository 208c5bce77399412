"""Weights on this machine's disk: which files make a model, and what is there to load.

Everything here reads the disk and may block; the daemon calls it from a thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.weights import distrust, gguf, labels, safetensors
from services.neuron.weights.fingerprint import fingerprint

_CONFIG: Final = "config.json"
# A GGUF file may be split; whoever reads the first part reads them all.
_PART: Final = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})$")
_MOST_FILES: Final = 20_000
_DEEPEST: Final = 4
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
        raise FleetError(Reason.MODEL_UNKNOWN, f"There is no file {path.name} here.") from error
    except gguf.BadGgufError as error:
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
    """Whether a GGUF file of this name holds a model, and not the vision projector of one."""
    return name.endswith(".gguf") and not name.lower().startswith("mmproj")


def listing(folders: Sequence[pathlib.Path]) -> tuple[dict[str, Weights], list[str]]:
    """All models below some folders by name, and a line for each file that cannot be loaded.

    A GGUF file's model is called as the file without its ending, a folder's as the folder. Of two
    with one name the first counts.
    """
    found: dict[str, Weights] = {}
    problems: list[str] = []
    for folder in folders:
        for path in _candidates(folder):
            name = _PART.sub("", path.stem) if path.suffix == ".gguf" else path.name
            if name in found:
                continue
            try:
                found[_checked(name)] = inspect(path)
            except FleetError as error:
                problems.append(distrust.shown(error.message))
    return found, problems


def _checked(name: str) -> str:
    if distrust.shown(name) != name:
        raise FleetError(Reason.MODEL_FILE_BAD, f"{name} cannot be a model's name.")
    return name


def stored(found: Mapping[str, Weights]) -> list[model.StoredModel]:
    """A listing as the status shows it."""
    return [described(name, weights) for name, weights in sorted(found.items())]


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
        capabilities=capabilities(is_embedder=weights.is_embedder),
        quantization=weights.quantization,
        parameter_size=weights.parameter_size,
        cache_bytes_per_token=weights.cache_bytes_per_token,
    )
    with contextlib.suppress(OSError, ValueError):
        made.modified_at.FromNanoseconds(max(path.stat().st_mtime_ns for path in weights.files))
        made.fingerprint = fingerprint(weights.files)
    return made


def capabilities(*, is_embedder: bool) -> list[model.Capability.ValueType]:
    """What a model can do as far as its files tell: embed, else complete and chat."""
    if is_embedder:
        return [model.CAPABILITY_EMBEDDING]
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


def _candidates(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """GGUF files and model folders, links followed, hidden folders and known ones not entered."""
    seen = 0
    entered: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        here = pathlib.Path(root)
        with contextlib.suppress(OSError):
            facts = here.stat()
            if (facts.st_dev, facts.st_ino) in entered:  # a link that leads back
                folders.clear()
                continue
            entered.add((facts.st_dev, facts.st_ino))
        if len(here.relative_to(folder).parts) >= _DEEPEST:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen += len(files)
        if seen > _MOST_FILES:
            return
        if _CONFIG in files and any(name.endswith(".safetensors") for name in files):
            yield here
        yield from _first_parts([here / name for name in sorted(files) if is_model_file(name)])


def _folder(path: pathlib.Path, quant: str) -> Weights:
    ggufs = _first_parts(sorted(each for each in path.rglob("*.gguf") if is_model_file(each.name)))
    if len(ggufs) == 1 and not quant:
        return _gguf(ggufs[0])
    if ggufs:
        return _gguf(pick(ggufs, quant))
    tensors = sorted(path.glob("*.safetensors"))
    if not tensors or not (path / _CONFIG).is_file():
        raise FleetError(Reason.MODEL_FILE_BAD, f"There is no model in {path.name}.")
    return _safetensors(path, tensors)


def _gguf(path: pathlib.Path) -> Weights:
    header = gguf.read(path)
    parts = _parts(path)
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
    )


def _first_parts(files: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The files without the later parts of split ones."""
    parts = [(path, _PART.search(path.stem)) for path in files]
    return [path for path, part in parts if part is None or int(part["number"]) == 1]


def _parts(first: pathlib.Path) -> list[pathlib.Path]:
    """All parts of a GGUF file; of most there is one."""
    part = _PART.search(first.stem)
    if part is None:
        return [first]
    count = int(part["count"])
    stem = first.stem[: part.start()]
    return [
        first.with_name(f"{stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)
    ]


def _safetensors(path: pathlib.Path, files: Sequence[pathlib.Path]) -> Weights:
    text = distrust.text_of(path / _CONFIG, most_bytes=_LARGEST_CONFIG_BYTES)
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
            return distrust.whole(key, config.get(key) or otherwise)

        heads = number("num_attention_heads", 1)
        kv_heads = number("num_key_value_heads", heads)
        width = number("head_dim", number("hidden_size") // heads)
        cache = 2 * number("num_hidden_layers") * kv_heads * width * 2
        distrust.whole("its cache", cache, most=distrust.MOST_BYTES)
        context = number("max_position_embeddings")
        told = (config.get("quantization_config") or {}).get("quant_method", "safetensors")
        method = distrust.word(told)
        quantization = distrust.word(labels.of_config(config))
        architecture = distrust.word(names[0])
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
        raise FleetError(
            Reason.MODEL_FILE_BAD, f"{path.name}/{_CONFIG} cannot be read: {str(error)[:200]}."
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
    )
