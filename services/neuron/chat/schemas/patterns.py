"""Which patterns and formats can be enforced. Pure.

Source: llguidance 1.9, whose regular expressions are Rust's without what looks around; JSON
Schema has ECMAScript's.
"""

from __future__ import annotations

import re
import warnings
from typing import Final

FORMATS: Final = frozenset(
    {
        "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
        "unknown",
    }
)  # fmt: skip
_LONGEST: Final = 2000
_FOREIGN: Final = re.compile(
    r"""\(\?(?:[=!>(\#]|<[=!])  # look-around and kinds of groups that only others have
    | \\[0-9kbBzZAGcCuUN]       # references to groups, boundaries, escapes of others
    """,
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"\\[pP]\{\^?[\w=&]*\}|\\.", re.DOTALL)
_CLASS: Final = re.compile(r"\[\^?\]?[^\]]*\]")
# Within a class of Rust's: classes and operators. Outside: braces that count nothing, and anchors
# that are not at the end of an alternative.
_IN_CLASS: Final = re.compile(r"\[(?!:)|&&|--|~~")
_OUTSIDE: Final = re.compile(r"\{(?!\d+(?:,\d*)?\})|[^(|:>]\^|\$[^)|]")


def is_enforceable(pattern: str) -> bool:
    """Whether a pattern can be enforced, as far as can be told without compiling it."""
    if len(pattern) > _LONGEST or _FOREIGN.search(pattern.replace(r"\\", "")):
        return False
    plain = _ESCAPED.sub("x", pattern)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that Python may read otherwise one day
            re.compile(plain.replace("(?<", "(?P<"))
    except (re.error, OverflowError, RecursionError):
        return False
    if any(_IN_CLASS.search(found[0], 1) for found in _CLASS.finditer(plain)):
        return False
    return not _OUTSIDE.search(_CLASS.sub("x", plain))
