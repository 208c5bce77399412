"""What the agent offers, and the modes and settings of a session as editors show them. Pure."""

from collections.abc import Iterable, Sequence

import acp.schema

from services.agent.core.modes import MODE_TITLES, Mode

ConfigOption = acp.schema.SessionConfigOptionSelect | acp.schema.SessionConfigOptionBoolean
MODE_OPTION = "mode"
MODEL_OPTION = "model"
DELETE_EXTENSION = "session/delete"  # the SDK passes on only what it knows, and extensions


def capabilities() -> acp.schema.AgentCapabilities:
    """Returns what an editor may ask of this agent."""
    return acp.schema.AgentCapabilities(
        load_session=True,
        prompt_capabilities=acp.schema.PromptCapabilities(
            image=True, audio=False, embedded_context=True
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
