"""An editor's prompt as parts of a user turn. Pure."""

from collections.abc import Sequence

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
        return TextPart(clean(f"[{block.name}]({_path(block.uri)})"))
    if isinstance(block, acp.schema.EmbeddedResourceContentBlock):
        return _embedded(block.resource)
    return TextPart("[audio was attached, which this agent cannot hear]")


def _embedded(
    resource: acp.schema.TextResourceContents | acp.schema.BlobResourceContents,
) -> Part:
    if isinstance(resource, acp.schema.TextResourceContents):
        path = _path(resource.uri)
        return TextPart(clean(f'\n<file path="{path}">\n{resource.text}\n</file>\n'))
    if resource.mime_type and resource.mime_type.startswith("image/"):
        return ImagePart(resource.blob, resource.mime_type)
    return TextPart(clean(f"[a binary file was attached: {_path(resource.uri)}]"))


def _path(uri: str) -> str:
    """Returns what the tools can read: a plain path for a file URI."""
    return uri.removeprefix("file://")
