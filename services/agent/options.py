"""What the agent offers, and the modes and settings of a session as editors show them. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import acp.schema
import msgspec

from services.agent.core.model_options import EFFORTS, TEMPERATURES, TOP_PS, ModelOptions
from services.agent.core.modes import MODE_TITLES, Mode

ConfigOption = acp.schema.SessionConfigOptionSelect | acp.schema.SessionConfigOptionBoolean
MODE_OPTION = "mode"
MODEL_OPTION = "model"
EFFORT_OPTION = "effort"
TEMPERATURE_OPTION = "temperature"
TOP_P_OPTION = "top_p"
_DEFAULT = "default"  # of the endpoint and the model


@dataclass(frozen=True, slots=True)
class _Offered:
    """One of the options of a model, by the name of its field."""

    name: str
    description: str
    category: Literal["thought_level", "model_config"]
    values: Sequence[str | float]


_OFFERED: Final[Mapping[str, _Offered]] = {
    EFFORT_OPTION: _Offered(
        "Thinking", "How hard the model thinks, where it can.", "thought_level", EFFORTS
    ),
    TEMPERATURE_OPTION: _Offered(
        "Temperature", "0 takes the likeliest words.", "model_config", TEMPERATURES
    ),
    TOP_P_OPTION: _Offered(
        "Top p", "The share of likely words that are chosen from.", "model_config", TOP_PS
    ),
}
DELETE_EXTENSION = "session/delete"  # the SDK passes on only what it knows, and extensions


def capabilities(*, can_see: bool) -> acp.schema.AgentCapabilities:
    """Returns what this agent can do, as it is told to the editor when they connect.

    Args:
        can_see: some model takes pictures, so that prompts may hold them.
    """
    return acp.schema.AgentCapabilities(
        load_session=True,
        prompt_capabilities=acp.schema.PromptCapabilities(
            image=can_see, audio=False, embedded_context=True
        ),
        mcp_capabilities=acp.schema.McpCapabilities(http=True, sse=True),
        session_capabilities=acp.schema.SessionCapabilities(
            list=acp.schema.SessionListCapabilities(),
            delete=acp.schema.SessionDeleteCapabilities(),
            resume=acp.schema.SessionResumeCapabilities(),
            fork=acp.schema.SessionForkCapabilities(),
            close=acp.schema.SessionCloseCapabilities(),
            additional_directories=acp.schema.SessionAdditionalDirectoriesCapabilities(),
        ),
    )


def modes(current: Mode) -> acp.schema.SessionModeState:
    """Returns the modes, least surprising first."""
    return acp.schema.SessionModeState(
        current_mode_id=current.value,
        available_modes=[
            acp.schema.SessionMode(id=mode.value, name=title, description=description)
            for mode, (title, description) in MODE_TITLES.items()
        ],
    )


def config_options(
    mode: Mode, model: str, selectors: Sequence[str], chosen: ModelOptions
) -> list[ConfigOption]:
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
    return [*options, *_model_options(chosen)]


def changed(chosen: ModelOptions, config_id: str, value: str) -> ModelOptions:
    """Returns the options of a model with one of them changed.

    Raises:
        LookupError: there is no such option, or no such value of it; the message says which.
    """
    if config_id not in _OFFERED:
        raise LookupError(f"no option {config_id}")
    known = [_DEFAULT, *map(str, _OFFERED[config_id].values)]
    if value not in known:
        raise LookupError(f"{config_id}: {value!r} is none of {', '.join(known)}")
    if value == _DEFAULT:
        return msgspec.structs.replace(chosen, **{config_id: getattr(ModelOptions(), config_id)})
    found = value if config_id == EFFORT_OPTION else float(value)
    return msgspec.structs.replace(chosen, **{config_id: found})


def _model_options(chosen: ModelOptions) -> Iterator[ConfigOption]:
    for config_id, offered in _OFFERED.items():
        current = getattr(chosen, config_id)
        is_default = current in {None, ""}
        yield acp.schema.SessionConfigOptionSelect(
            id=config_id,
            name=offered.name,
            description=offered.description,
            category=offered.category,
            type="select",
            current_value=_DEFAULT if is_default else str(current),
            options=[
                acp.schema.SessionConfigSelectOption(value=each, name=each.capitalize())
                for each in (_DEFAULT, *map(str, offered.values))
            ],
        )


def _with_current(current: str, selectors: Iterable[str]) -> list[str]:
    found = list(selectors)
    return [current, *found] if current and current not in found else found
