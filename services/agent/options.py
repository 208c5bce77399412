"""The modes and settings of a session as editors show them. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

import acp.schema
from pydantic import Field

from services.agent.core.modes import MODE_TITLES, Mode

ConfigOption = acp.schema.SessionConfigOptionSelect | acp.schema.SessionConfigOptionBoolean
MODE_OPTION = "mode"
MODEL_OPTION = "model"


class NewSession(acp.schema.NewSessionResponse):
    """The response with the models where editors from before config options look for them."""

    models: dict[str, Any] | None = Field(default=None)


class LoadSession(acp.schema.LoadSessionResponse):
    """Likewise for a loaded session."""

    models: dict[str, Any] | None = Field(default=None)


def modes(current: Mode) -> acp.schema.SessionModeState:
    """Returns the modes, least surprising first."""
    return acp.schema.SessionModeState(
        current_mode_id=current.value,
        available_modes=[
            acp.schema.SessionMode(id=mode.value, name=title, description=description)
            for mode, (title, description) in MODE_TITLES.items()
        ],
    )


def models(current: str, selectors: Sequence[str]) -> dict[str, Any] | None:
    """Returns the model list of protocol drafts before config options, None without models."""
    found = _with_current(current, selectors)
    if not found:
        return None
    available = [{"modelId": selector, "name": selector} for selector in found]
    return {"currentModelId": current or found[0], "availableModels": available}


def config_options(mode: Mode, model: str, selectors: Sequence[str]) -> list[ConfigOption]:
    """Returns the options; the mode is one, as editors that know options ignore `modes`."""
    options: list[ConfigOption] = [
        acp.schema.SessionConfigOptionSelect(
            id=MODE_OPTION,
            name="Mode",
            category="mode",
            type="select",
            current_value=mode.value,
            options=[
                acp.schema.SessionConfigSelectOption(
                    value=each.value, name=title, description=description
                )
                for each, (title, description) in MODE_TITLES.items()
            ],
        )
    ]
    found = _with_current(model, selectors)
    if found:
        options.append(
            acp.schema.SessionConfigOptionSelect(
                id=MODEL_OPTION,
                name="Model",
                category="model",
                type="select",
                current_value=model or found[0],
                options=[
                    acp.schema.SessionConfigSelectOption(value=each, name=each) for each in found
                ],
            )
        )
    return options


def _with_current(current: str, selectors: Iterable[str]) -> list[str]:
    found = list(selectors)
    return [current, *found] if current and current not in found else found
