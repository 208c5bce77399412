"""Text made safe to store, to show and to cut.

JSON may carry lone surrogates, which neither a file nor another JSON encoder accepts; a
command may carry line ends and escape codes, which an editor's card does not want.
"""

import re
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def clean(text: str) -> str:
    """Joins split surrogate pairs and replaces lone surrogates, so that UTF-8 can carry it."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean_json(value: Any) -> Any:
    """Applies `clean` to every string inside a decoded JSON value."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_json(item) for item in value]
    if isinstance(value, dict):
        return {clean(str(key)): clean_json(item) for key, item in value.items()}
    return value


def one_line(text: str, limit: int) -> str:
    """Returns at most `limit` characters on one line, an ellipsis where something was cut.

    Counts characters, never bytes: a title in any script is cut between characters.
    """
    line = _CONTROL.sub(" ", clean(text)).strip()
    if len(line) <= limit:
        return line
    return line[: limit - 1].rstrip() + "…"


def visible(text: str) -> str:
    """Returns a text with every sign that does not print but line ends written out."""
    return "".join(
        sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in clean(text)
    )


def quoted(text: str) -> str:
    """Returns a text as a code block of Markdown, which nothing in it can end."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}\n{text}\n{fence}"


def cut_middle(text: str, limit: int) -> str:
    """Keeps the first and the last half of `limit` characters and says what was left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    dropped = len(text) - 2 * half
    return f"{text[:half]}\n[... {dropped} characters left out ...]\n{text[len(text) - half :]}"
