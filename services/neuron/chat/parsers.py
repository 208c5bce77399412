"""Which parser reads a model's answers: by the load's wish, else by the chat template. Pure."""

from __future__ import annotations

from services.backplane.errors import FleetError, Reason
from services.neuron.chat.reasoning import FORMATS, Markers, markers_of


def reasoning_markers(reasoning_format: str, template_source: str) -> Markers | None:
    """How a model marks its reasoning; None where it does not reason.

    Args:
        reasoning_format: as in cortex.v1.LoadSpec: a name, `none`, or empty for the template's.
        template_source: the model's chat template.

    Raises:
        FleetError: BAD_REQUEST, there is no such format.
    """
    if reasoning_format == "none":
        return None
    if not reasoning_format:
        return markers_of(template_source)
    markers = FORMATS.get(reasoning_format)
    if markers is None:
        known = ", ".join(["none", *FORMATS])
        raise FleetError(
            Reason.BAD_REQUEST,
            f"No reasoning format {reasoning_format!r} (known: {known}).",
            field="spec.reasoning_format",
        )
    return markers
