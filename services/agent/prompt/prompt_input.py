"""An editor's prompt as parts of a user turn. Pure."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

import acp.schema

from services.agent.core.history import ImagePart, Part, TextPart
from services.agent.core.text import clean

Block = (
    acp.schema.TextContentBlock
    | acp.schema.ImageContentBlock
    | acp.schema.AudioContentBlock
    | acp.schema.ResourceContentBlock
    | acp.schema.EmbeddedResourceContentBlock
)

_FILE_URI = re.compile(
    r"file://(?:localhost(?=/))?(?P<path>.*?)"
    r"(?:\?symbol=(?P<symbol>[^#&]*))?"
    r"(?:#L(?P<first>\d+)(?:[:-]L?(?P<last>\d+))?)?",
    re.DOTALL,
)


def user_parts(blocks: Sequence[Block]) -> tuple[Part, ...]:
    """Flattens content blocks, their order kept; text that follows text is joined."""
    parts: list[Part] = []
    for block in blocks:
        part = _part(block)
        last = parts[-1] if parts else None
        if isinstance(part, TextPart) and isinstance(last, TextPart):
            parts[-1] = TextPart(last.text + part.text)
        else:
            parts.append(part)
    return tuple(parts)


def _part(block: Block) -> Part:
    if isinstance(block, acp.schema.TextContentBlock):
        return TextPart(clean(block.text))
    if isinstance(block, acp.schema.ImageContentBlock):
        return ImagePart(block.data, block.mime_type)
    if isinstance(block, acp.schema.ResourceContentBlock):
        path, place = _place(block.uri)
        return TextPart(clean(f"[{block.name}]({path})" + (f" ({place})" if place else "")))
    if isinstance(block, acp.schema.EmbeddedResourceContentBlock):
        return _embedded(block.resource)
    return TextPart("[audio was attached, which this agent cannot hear]")


def _embedded(
    resource: acp.schema.TextResourceContents | acp.schema.BlobResourceContents,
) -> Part:
    if isinstance(resource, acp.schema.TextResourceContents):
        path, place = _place(resource.uri)
        part = f' part="{place}"' if place else ""
        return TextPart(clean(f'\n<file path="{path}"{part}>\n{resource.text}\n</file>\n'))
    if resource.mime_type and resource.mime_type.startswith("image/"):
        return ImagePart(resource.blob, resource.mime_type)
    return TextPart(clean(f"[a binary file was attached: {_place(resource.uri)[0]}]"))


def _place(uri: str) -> tuple[str, str]:
    """Returns what the tools can read, a plain path for a file URI, and the part of it in words.

    Editors write the part behind the path, `?symbol=main#L10:20`; anything else there belongs to
    the name of the file, as some editors do not encode it.
    """
    match = _FILE_URI.fullmatch(uri)
    if match is None:
        return uri, ""
    words: list[str] = []
    if symbol := match["symbol"]:
        words.append(f"symbol {unquote(symbol)}")
    if first := match["first"]:
        last = match["last"] or first
        words.append(f"line {first}" if first == last else f"lines {first}-{last}")
    return unquote(match["path"]), ", ".join(words)
