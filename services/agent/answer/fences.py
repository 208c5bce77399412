"""Code fences in Markdown, as a stream goes by: what stands in one is quoted. Pure."""

import re

# Three or more backticks or tildes, indented by three spaces at most (CommonMark, section 4.5).
_OPEN = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)\n?")


class Fences:
    """Follows the lines of one text; feed it any pieces."""

    def __init__(self) -> None:
        self._line = ""
        self._fence = ""

    def feed(self, text: str) -> None:
        """Takes what comes next."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._fence = after(line, self._fence)

    @property
    def quotes_next(self) -> bool:
        """Whether what comes next stands in a fence or directly behind a backtick."""
        return bool(self._fence) or self._line.endswith("`")


def after(line: str, fence: str) -> str:
    """Returns the fence that is open after a line, empty when none is.

    Args:
        line: whole, its line end left out or not.
        fence: the one that is open before it, empty when none is.
    """
    if fence:
        mark = line.strip()
        is_end = len(mark) >= len(fence) and set(mark) == {fence[0]}
        return "" if is_end else fence
    return opening(line)[0]


def opening(line: str) -> tuple[str, str]:
    """Returns the fence that a line opens and the language behind it, two empty strings if none."""
    match = _OPEN.fullmatch(line)
    return (match[1], match[2].strip().lower()) if match else ("", "")
