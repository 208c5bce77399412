"""Values that a model wrote without quotes, as JSON: numbers, literals, and what was meant as text.

Sources: RFC 8259; what Python and JavaScript write beyond it. Pure.
"""

from __future__ import annotations

import math
import re
from typing import Final

from services.neuron.chat.tool_calls.parsing.arguments import dumps

PYTHON: Final = "took Python's spelling for JSON's"
NO_QUOTES: Final = "put quotes around a string"
LOOSE_NUMBER: Final = "took a number that JSON spells otherwise"
# Python spells no integer of more digits.
_LONGEST: Final = 4000
_LITERALS: Final = frozenset({"true", "false", "null"})
_PYTHON_NAMES: Final = {"True": "true", "False": "false", "None": "null"}
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(
    r"[+-]?(?:0[xX][\da-fA-F]+|0[oO][0-7]+|0[bB][01]+|0|[1-9]\d*(?:_\d+)*)", re.ASCII
)
# 007 is 7 to some and an error to others, so it is none
_DECIMAL: Final = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>0|[1-9]\d*)?(?:\.(?P<part>\d*))?(?P<power>[eE][+-]?\d+)?", re.ASCII
)
# JSON has no number for these; null is what JavaScript writes in their place
_NO_NUMBER: Final = re.compile(r"[+-]?(?:NaN|nan|Infinity|inf)|undefined")


def value_of(word: str) -> tuple[str, str] | None:
    """The JSON that a word certainly means, and what was mended; None where it is only text."""
    if word in _LITERALS:
        return word, ""
    if word in _PYTHON_NAMES:
        return _PYTHON_NAMES[word], PYTHON
    if _NO_NUMBER.fullmatch(word):
        return "null", f"took null for {word}"
    number, repair = word, ""
    if not _NUMBER.fullmatch(word):
        number, repair = _loose(word), LOOSE_NUMBER
    if not number:
        return None
    if not math.isfinite(float(number)):
        return "null", "took null for a number beyond all doubles"
    return number, repair


def json_of_word(word: str) -> tuple[str, str]:
    """As `value_of`; what is only text is a string."""
    return value_of(word) or (dumps(word), NO_QUOTES)


def _loose(word: str) -> str:
    """A number that is none in JSON as JSON has it; empty where it is no number."""
    if _INTEGER.fullmatch(word):
        return str(int(word, 0)) if len(word) < _LONGEST else ""
    found = _DECIMAL.fullmatch(word)
    if found is None or not (found["whole"] or found["part"]):
        return ""
    sign = found["sign"].replace("+", "")
    return f"{sign}{found['whole'] or '0'}.{found['part'] or '0'}{found['power'] or ''}"
