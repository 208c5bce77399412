"""Which llama.cpp library is used: the one that the settings name, or one that is found."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.neuron.devices.ggml import OWN_FOLDER

_WHEEL: Final = "xllamacpp"
_INSIDE: Final = (".", "lib", "bin", "build/bin", _WHEEL)
_PATTERNS: Final = (
    "libllama.so",
    "libllama.dylib",
    "libllama.so.*",
    "libllama.*.so",
    f"{_WHEEL}*.so",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A library on disk.

    Attributes:
        path: of the shared library that has llama.h's functions.
        origin: why this one, in words.
    """

    path: Path
    origin: str


def locate(setting: str) -> Found:
    """The library to load.

    1. What the setting names: a shared library, or a folder that holds one: an unpacked official
       build, or an unpacked wheel.
    2. Else a build in `OWN_FOLDER`.
    3. Else the `xllamacpp` wheel of this environment.

    Args:
        setting: `neuron.llamacpp.library`; empty finds one.

    Raises:
        ImportError: there is none.
    """
    if setting:
        path = _at_home(setting)
        found = path if path.is_file() else next(_within(path), None)
        if found is None:
            raise ImportError(f"neuron.llamacpp.library is {setting}: there is no libllama.so.")
        return Found(found.resolve(), "named by neuron.llamacpp.library")
    own = next(_within(_at_home(OWN_FOLDER)), None)
    if own is not None:
        return Found(own.resolve(), f"in {OWN_FOLDER}")
    spec = importlib.util.find_spec(_WHEEL)
    wheel = None if spec is None or spec.origin is None else Path(spec.origin).parent
    inside = None if wheel is None else next(_within(wheel), None)
    if inside is None:
        raise ImportError(f"{_WHEEL} is not installed; install cortex-fleet[llamacpp].")
    return Found(inside, f"of {_WHEEL} {importlib.metadata.version(_WHEEL)}")


def _at_home(text: str) -> Path:
    """A path whose `~` is the user's; as it stands for a user who has no home, as in containers."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's raises where there is no home


def _within(folder: Path) -> Iterator[Path]:
    for inside in _INSIDE:
        for pattern in _PATTERNS:
            yield from sorted((folder / inside).glob(pattern))
