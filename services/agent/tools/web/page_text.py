"""The text of an HTML page, with its headings, lists, links and code. Pure."""

import re
import time
from html.parser import HTMLParser
from urllib.parse import urljoin

from typing_extensions import override

_CHUNK = 16_384
_MOST_UNPARSED = 65_536  # a longer rest never ends, and takes the parser its square
_SECONDS = 2.0
_SHORTEST_MAIN = 200  # characters; below, the page keeps its text elsewhere

_SKIPPED = frozenset(
    {"script", "style", "template", "svg", "math", "iframe", "object", "canvas", "select"}
)
_BLOCKS = frozenset(
    {
        "address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details",
        "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr",
        "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "thead",
        "title", "tr", "ul", "h1", "h2", "h3", "h4", "h5", "h6",
    }
)  # fmt: skip
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_LINE_ENDS = re.compile(r"\n{3,}")


def page_text(html: str, base: str) -> str:
    """Returns what a page says: that of its `main` or `article` where there is one.

    What is broken in the markup is passed over; what takes too long to read ends the text.

    Args:
        html: the whole page.
        base: its address, for links that are relative.
    """
    reader = _Reader(base)
    html = html.replace("<![", "<! [")  # which the parser gives up at, where it is not CDATA
    deadline = time.monotonic() + _SECONDS
    for start in range(0, len(html), _CHUNK):
        reader.feed(html[start : start + _CHUNK])
        if time.monotonic() > deadline:
            break
    if len(reader.rawdata) <= _MOST_UNPARSED:
        reader.close()
    return reader.text()


class _Reader(HTMLParser):
    """Collects text; blocks begin lines, and white space counts only in `pre`."""

    def __init__(self, base: str) -> None:
        super().__init__(convert_charrefs=True)
        self._base = base
        self._all: list[str] = []
        self._main: list[str] = []
        self._mains = self._skipped = self._preformatted = 0
        self._links: list[str] = []

    def text(self) -> str:
        main = _tidied(self._main)
        return main if len(main) >= _SHORTEST_MAIN else _tidied(self._all)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED:
            self._skipped += 1
        if tag in {"main", "article"}:
            self._mains += 1
        if tag in _BLOCKS:
            self._add("\n\n" if tag in _HEADINGS or tag == "p" else "\n")
        if tag == "pre":
            self._preformatted += 1
            self._add("```\n")
        elif tag in _HEADINGS:
            self._add(_HEADINGS[tag])
        elif tag == "li":
            self._add("- ")
        elif tag in {"td", "th"}:
            self._add(" | ")
        elif tag == "a":
            href = dict(attrs).get("href") or ""
            self._links.append(_absolute(self._base, href))
            if self._links[-1]:
                self._add("[")

    @override
    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skipped = max(self._skipped - 1, 0)
        if tag == "a" and self._links and (link := self._links.pop()):
            self._add(f"]({link})")
        if tag == "pre" and self._preformatted:
            self._preformatted -= 1
            self._add("\n```")
        if tag in _BLOCKS:
            self._add("\n")
        if tag in {"main", "article"}:
            self._mains = max(self._mains - 1, 0)

    @override
    def handle_data(self, data: str) -> None:
        self._add(data if self._preformatted else re.sub(r"\s+", " ", data))

    def _add(self, piece: str) -> None:
        if self._skipped:
            return
        self._all.append(piece)
        if self._mains:
            self._main.append(piece)


def _absolute(base: str, href: str) -> str:
    """Returns where a link leads, empty where that is no other page."""
    if not href or href.startswith("#"):
        return ""
    try:
        link = urljoin(base, href.strip())
    except ValueError:
        return ""
    return link if link.startswith(("http://", "https://")) else ""


def _tidied(pieces: list[str]) -> str:
    lines = [line.rstrip() for line in "".join(pieces).split("\n")]
    in_code = False
    for number, line in enumerate(lines):
        if line.lstrip() == "```":
            in_code = not in_code
        if not in_code:
            lines[number] = line.strip()
    text = "\n".join("" if line == "-" else line for line in lines)
    return _LINE_ENDS.sub("\n\n", text).strip()
