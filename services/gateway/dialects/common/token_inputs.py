"""Inputs that may be texts or token ids, one or many: `str`, `[str]`, `[int]`, `[[int]]`."""

from __future__ import annotations

from typing import Any, Final, TypeAlias, TypeGuard

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.dialects.common.json_body import bad

_UINT32: Final = 2**32 - 1
MAX_INPUTS: Final = 2048
# msgspec takes no union of several lists: `texts_or_tokens` tells them apart.
Inputs: TypeAlias = str | list[Any]


def texts_or_tokens(found: Inputs, path: str) -> list[str | list[int]]:
    """The inputs as a list, each as text or as token ids.

    Raises:
        FleetError: BAD_REQUEST with the path of the input at fault.
    """
    if isinstance(found, str):
        return [found]
    if not found:
        raise bad(path, "must not be empty.")
    if _is_tokens(found):
        return [found]
    if len(found) > MAX_INPUTS:
        raise bad(path, f"holds {len(found)} inputs; at most {MAX_INPUTS} are allowed.")
    return [_one(one, f"{path}.{index}") for index, one in enumerate(found)]


def _one(found: Any, path: str) -> str | list[int]:
    if isinstance(found, str) or _is_tokens(found):
        return found
    raise bad(path, "Expected text or a list of token ids.")


def _is_tokens(found: Any) -> TypeGuard[list[int]]:
    return isinstance(found, list) and bool(found) and all(_is_token(one) for one in found)


def _is_token(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _UINT32


def inputs_of(found: Inputs, path: str) -> list[neuron.EmbedInput]:
    """The inputs of an embedding request.

    Raises:
        FleetError: BAD_REQUEST with the path of the input at fault.
    """
    inputs: list[neuron.EmbedInput] = []
    for index, one in enumerate(texts_or_tokens(found, path)):
        if not one:
            raise bad(path if isinstance(found, str) else f"{path}.{index}", "must not be empty.")
        if isinstance(one, str):
            inputs.append(neuron.EmbedInput(text=one))
        else:
            inputs.append(neuron.EmbedInput(token_ids=generation.TokenIds(ids=one)))
    return inputs
