"""Scripted models of a known room and known words, and the catalogue that offers them."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tests.doubles import scripted

# What the models say, over and over: an answer of n tokens is the first n words.
WORDS: Final[Mapping[str, Sequence[str]]] = {
    "alpha": ("Alpha", " opens", " quietly", " under", " early", " stars."),
    "bravo": ("Bravo", " answers", " with", " emoji", " 🙂🚀", " twice!"),
    "charlie": ("Charlie", " counts", " slowly", " towards", " morning", "…"),
}
# A copy takes 60 to 90 MiB with this context: two never fit into one budget.
_CONTEXT: Final = 32768


def build_models(folder: pathlib.Path, names: Iterable[str] = tuple(WORDS)) -> str:
    """Writes the models into a folder; returns the catalogue that offers them."""
    entries: list[str] = []
    for name in names:
        path = folder / f"{name}.gguf"
        script = scripted.Script(words=WORDS[name], is_endless=True, name=name, context=_CONTEXT)
        scripted.build(path, script)
        entries.append(f'[[models]]\nid = "{name}"\nsource = "path:{path}"\nmemory = "80MB"\n')
    return "\n".join(entries)


def answer(model: str, tokens: int) -> str:
    """The text of an answer of so many tokens."""
    return "".join(itertools.islice(itertools.cycle(WORDS[model]), tokens))
