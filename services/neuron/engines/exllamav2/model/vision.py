"""Pictures in prompts, where 0.3.2 has a tower for the architecture.

A picture becomes a run of ids from 1,000,000,000 on that stand for its vectors. The tower's output
brings its own begin and end tokens, so it takes the place of the whole marker that the template
wrote. Runs are kept for a few pictures: the same picture gets the same ids, and so its pages in the
cache are found again.

Source: exllamav2/vlm (0.3.2) and the chat templates of the models named below.
"""

from __future__ import annotations

import collections
import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.engines.exllamav2.library.faults import Fault, classify, one_line
from services.neuron.engines.exllamav2.model.generators import GeneratorParts

MARKERS: Final[tuple[tuple[str, ...], ...]] = (
    ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),  # Qwen2-VL, Qwen2.5-VL
    ("<start_of_image>",),  # Gemma 3
    ("[IMG]",),  # Pixtral, Mistral 3
)
_KEPT: Final = 16
FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP")
"""What clients are told that pictures may be."""
MOST_PIXELS: Final = 50_000_000
"""Reading and shrinking a picture holds up all streams: this many take about a second."""


def open_tower(package: Any, config: Any) -> Any:
    """The library's tower, still empty, with two of its mistakes mended.

    Args:
        package: `exllamav2`.
        config: the library's, of a model that sees.
    """
    if config.architecture == "Qwen2_5_VLForConditionalGeneration":
        # It has Qwen2-VL's norm before the projector, which takes the mean away.
        config.arch.mmp.norm = "rmsnorm"
    tower = package.ExLlamaV2VisionTower(config)
    for module in tower.modules:
        if hasattr(module, "scaling"):
            # It takes the language model's own scale for the tower's attention (Gemma 3).
            module.scaling = module.head_dim**-0.5
    return tower


def marker_ids(control: Mapping[str, int]) -> tuple[int, ...]:
    """The marker of the model with these control tokens; empty where none is known."""
    for marker in MARKERS:
        if all(token in control for token in marker):
            return tuple(control[token] for token in marker)
    return ()


def replace(
    prompt: Sequence[int], marker: Sequence[int], runs: Sequence[Sequence[int]]
) -> list[int]:
    """The prompt with the n-th marker replaced by the n-th run.

    Raises:
        FleetError: BAD_REQUEST, there are not as many markers as runs.
    """
    width, used, at = len(marker), 0, 0
    result: list[int] = []
    while at < len(prompt):
        if width and list(prompt[at : at + width]) == list(marker):
            if used < len(runs):
                result.extend(runs[used])
            used += 1
            at += width
        else:
            result.append(prompt[at])
            at += 1
    if used != len(runs):
        raise FleetError(
            Reason.BAD_REQUEST,
            f"The prompt has {used} places for images and {len(runs)} images came.",
            field="images",
        )
    return result


class Vision:
    """Turns pictures into embeddings with the model's tower."""

    def __init__(self, parts: GeneratorParts, control: Mapping[str, int]) -> None:
        """Keeps what the tower needs.

        Args:
            parts: with a tower.
            control: the model's control tokens.
        """
        self._parts = parts
        self._marker = marker_ids(control)
        self._kept: collections.OrderedDict[bytes, Any] = collections.OrderedDict()

    def place(self, prompt: Sequence[int], images: Sequence[bytes]) -> tuple[list[int], list[Any]]:
        """The prompt with its pictures' ids, and their embeddings.

        Raises:
            FleetError: BAD_REQUEST, a picture cannot be read or is of a size that the tower does
                not take, or there is no place for it; OUT_OF_MEMORY.
            EnginePoisoned: the device is at fault.
        """
        embeddings = [self._embedding(image) for image in images]
        ids = replace(prompt, self._marker, [embedding.get_ids() for embedding in embeddings])
        return ids, embeddings

    def _embedding(self, image: bytes) -> Any:
        key = hashlib.blake2b(image, digest_size=16).digest()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        picture = opened(image)
        parts = self._parts
        try:
            with parts.library.torch.inference_mode():
                made = parts.tower.get_image_embeddings(
                    model=parts.model, tokenizer=parts.tokenizer, image=picture
                )
        except Exception as error:
            raise _refusal(error, picture.size) from error
        self._kept[key] = made
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return made


def opened(image: bytes) -> Any:
    """A picture in RGB.

    Raises:
        FleetError: BAD_REQUEST, it is none, of another format, or has too many pixels.
    """
    from PIL import Image

    try:
        # Pillow tries dozens of formats, some with programs of their own (EPS: Ghostscript).
        found = Image.open(io.BytesIO(image), formats=FORMATS)
        _check_pixels(*found.size)
        return found.convert("RGB")
    except FleetError:
        raise
    except Exception as error:  # whatever a decoder says of a stranger's bytes
        told = "An image cannot be read; PNG, JPEG, GIF and WebP can."
        raise FleetError(Reason.BAD_REQUEST, told, field="images") from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        told = f"An image of {width} by {height} pixels; {MOST_PIXELS} are read at most."
        raise FleetError(Reason.BAD_REQUEST, told, field="images")


def _refusal(error: Exception, size: tuple[int, int]) -> Exception:
    """What becomes of an exception out of the tower: a picture must not cost the worker."""
    fault = classify(error)
    if fault is Fault.DEVICE:
        return EnginePoisoned(one_line(error))
    width, height = size
    told = f"An image of {width} by {height} pixels cannot be used: {one_line(error)}"
    is_memory = fault is Fault.OUT_OF_MEMORY
    reason = Reason.OUT_OF_MEMORY if is_memory else Reason.BAD_REQUEST
    return FleetError(reason, told, field="images")
