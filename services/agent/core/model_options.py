"""How a session's model is asked: how hard it thinks, and how freely it chooses its words."""

from typing import Final

import msgspec

EFFORTS: Final = ("none", "low", "medium", "high", "max")
TEMPERATURES: Final = (0.0, 0.2, 0.5, 0.7, 1.0, 1.3)
TOP_PS: Final = (0.5, 0.8, 0.9, 0.95, 1.0)


class ModelOptions(msgspec.Struct, frozen=True):
    """What is empty or None is left to the endpoint and the model.

    Attributes:
        effort: one of EFFORTS.
        temperature: of sampling; 0 takes the likeliest token.
        top_p: the share of probability that sampling chooses from.
    """

    effort: str = ""
    temperature: float | None = None
    top_p: float | None = None
