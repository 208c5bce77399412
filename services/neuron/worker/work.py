"""What the engine loop is given to do: commands, those with text tokenised."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from services.backplane.errors import FleetError
from services.neuron.engine_api.frames import (
    AbandonCall,
    AbandonLoad,
    Cancel,
    CompareTokens,
    Credit,
    EmbedTexts,
    Load,
    StopWorker,
    Unload,
)
from services.neuron.engine_api.task import Task


@dataclasses.dataclass(frozen=True, slots=True)
class TokenisedTask:
    """A task with its token ids, or with the error that ended it before it began."""

    task: Task
    token_ids: Sequence[int] | FleetError


@dataclasses.dataclass(frozen=True, slots=True)
class TokenisedTexts:
    """Texts to embed with their token ids, or the error that ended the call."""

    call: EmbedTexts
    inputs: list[list[int]] | FleetError


Work = (
    Load
    | AbandonLoad
    | Unload
    | TokenisedTask
    | Cancel
    | Credit
    | TokenisedTexts
    | AbandonCall
    | CompareTokens
    | StopWorker
)
