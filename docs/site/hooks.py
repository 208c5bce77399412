"""Makes pages of the files outside docs/ that pages of the site link to, and leads links there.

A page links to what lies in the checkout (`../README.md`, `../examples/cortex.toml`), so that it
can be read there as it stands. The site has those files below `project/`.
Source: https://www.mkdocs.org/dev-guide/plugins/#events.
"""

from __future__ import annotations

import os
import pathlib
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = pathlib.Path(__file__).parents[2]
_LINK = re.compile(r"(\]\()([^)\s#]+)")
_ELSEWHERE = re.compile(r"[a-z]+:")
_BELOW = "project"


def on_files(files: Files, config: Any) -> Files:
    """Adds every file of the checkout that a page, or a page added so, links to."""
    waiting = [pathlib.Path(file.abs_src_path) for file in files.documentation_pages()]
    while waiting:
        path = waiting.pop()
        for target in _linked(path.read_text(), path):
            place = _place(target)
            if files.get_file_from_path(place) is None and target.is_file():
                files.append(File.generated(config, place, abs_src_path=str(target)))
                if target.suffix == ".md":
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leads each link to where the site has its target."""
    source = pathlib.Path(page.file.abs_src_path)

    def lead(match: re.Match[str]) -> str:
        target = _target(match[2], source)
        if target is None:
            return match[0]
        if target.is_dir():
            target = target / "README.md"
        return match[1] + posixpath.relpath(
            _place(target), posixpath.dirname(page.file.src_uri) or "."
        )

    return _LINK.sub(lead, markdown)


def _linked(text: str, page: pathlib.Path) -> list[pathlib.Path]:
    targets = [_target(link, page) for _, link in _LINK.findall(text)]
    return [target for target in targets if target is not None]


def _target(link: str, page: pathlib.Path) -> pathlib.Path | None:
    if _ELSEWHERE.match(link):
        return None
    return pathlib.Path(os.path.normpath(page.parent / link))


def _place(target: pathlib.Path) -> str:
    """Where the site has a file: as it lies below docs/, or below project/."""
    inside = target.relative_to(_ROOT)
    if inside.parts[0] == "docs":
        return posixpath.join(*inside.parts[1:])
    return posixpath.join(_BELOW, *inside.parts)
