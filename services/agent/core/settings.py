"""The agent's settings: one TOML file, or environment variables for a single endpoint.

A wrong setting is fatal at start, with the file and the key; nothing is silently ignored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from services.agent.core.modes import Mode
from services.backplane.settings import SettingsError, convert, read_toml
from services.backplane.units import IN_BYTES, PositiveSeconds

WireApi = Literal["openai-chat", "openai-responses", "anthropic-messages"]
ToolFormat = Literal["auto", "native", "text"]

DEFAULT_BASE_URL = "http://127.0.0.1:31313/v1"
PREFIX = "CORTEX_ACP_"
_ENDPOINT_KEYS = {
    "BASE_URL": "base_url",
    "WIRE_API": "wire_api",
    "MODEL": "model",
    "API_KEY": "api_key",
    "MAX_TOKENS": "max_tokens",
    "CONTEXT_WINDOW": "context_window",
    "TOOL_CALLS": "tool_calls",
}
_AGENT_KEYS = {
    "SYSTEM_PROMPT_PATH": "system_prompt_path",
    "LOG_FILE": "log_file",
    "LOG_LEVEL": "log_level",
    "MODE": "mode",
    "MAX_ROUNDS": "max_rounds",
}

Positive = Annotated[int, msgspec.Meta(gt=0)]
EndpointName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]+$", max_length=64)]
Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/]+")]


class EndpointSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """`[[endpoints]]`: where models are asked.

    Attributes:
        name: what stands before the colon in `endpoint:model`.
        base_url: where it is, with the version where the wire API has one (`/v1`).
        wire_api: which API it speaks.
        model: the model to start with; empty means the first that the endpoint lists.
        api_key: the key itself; sent as the wire API wants it.
        api_key_env: the variable that holds the key; wins over `api_key`.
        max_tokens: most tokens of one answer; unset leaves it to the endpoint.
        context_window: tokens; unset means what the endpoint lists, if it does.
        tool_calls: `auto` starts native and falls back to text when the endpoint refuses tools.
        connect_seconds: longest time until a connection stands.
        idle_seconds: longest silence between two reads of a stream, and before its headers.
        headers: sent with every request.
    """

    name: EndpointName = "cortex"
    base_url: Url = DEFAULT_BASE_URL
    wire_api: WireApi = "openai-chat"
    model: str = ""
    api_key: str = ""
    api_key_env: str = ""
    max_tokens: Positive | None = None
    context_window: Positive | None = None
    tool_calls: ToolFormat = "auto"
    connect_seconds: PositiveSeconds = 10.0
    idle_seconds: PositiveSeconds = 300.0
    headers: dict[str, str] = {}

    def __repr__(self) -> str:
        """Leaves the key and the headers out, so that no log can show them."""
        return f"EndpointSettings({self.name!r}, {self.base_url!r}, {self.wire_api!r})"


class FleetToolSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """`[fleet]`: tools for operators of a Cortex fleet, each of which asks for permission.

    Attributes:
        url: of the gateway, without a path; empty: the tools are not there.
        api_key: an operator's key; not needed by a gateway without keys on this machine.
        api_key_env: the variable that holds the key; wins over `api_key`.
    """

    url: Annotated[str, msgspec.Meta(pattern=r"^(https?://[^\s/]+/?)?$")] = ""
    api_key: str = ""
    api_key_env: str = ""

    def __repr__(self) -> str:
        """Leaves the key out, so that no log can show it."""
        return f"FleetSettings({self.url!r})"


class AgentSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Everything the agent can be told.

    Attributes:
        endpoints: where models are asked; unset is one endpoint, the gateway of this machine.
        default_endpoint: the endpoint of a bare model name; empty means the first one.
        mode: the mode that sessions begin in.
        max_rounds: model calls in one prompt before it stops with `max_turn_requests`.
        system_prompt_path: a file whose text replaces the first part of the system prompt.
        log_file: where the log is written; empty means the user's state directory.
        log_level: least severity that is logged.
        bash_seconds: longest run of one command unless the model asks for another.
        output_bytes: most of a tool's output that is kept.
        sessions_kept: most stored sessions; the longest untouched go first, at the agent's start.
            0 keeps all.
        search_rounds: model calls in one search of `search_agent` before it has to answer.
        search_tokens: tokens, read and written, of all calls of one search before it has to
            answer; as the endpoint counts them.
        fleet: tools for operators.
        client_seconds: longest wait for the editor's answer, permissions excepted.
    """

    endpoints: tuple[EndpointSettings, ...] = (EndpointSettings(),)
    default_endpoint: str = ""
    mode: Mode = Mode.DEFAULT
    max_rounds: Positive = 50
    system_prompt_path: str = ""
    log_file: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    bash_seconds: PositiveSeconds = 600.0
    output_bytes: Annotated[int, IN_BYTES, msgspec.Meta(ge=1024)] = 65536
    sessions_kept: Annotated[int, msgspec.Meta(ge=0)] = 1000
    search_rounds: Positive = 20
    search_tokens: Positive = 500_000
    client_seconds: PositiveSeconds = 30.0
    fleet: FleetToolSettings = FleetToolSettings()

    def endpoint(self, name: str) -> EndpointSettings | None:
        """Returns the endpoint of that name, the default one for an empty name."""
        wanted = name or self.default_endpoint or self.endpoints[0].name
        return next((each for each in self.endpoints if each.name == wanted), None)


def load_settings(environment: Mapping[str, str], path: Path | None = None) -> AgentSettings:
    """Reads the file and lets environment variables override it.

    Args:
        environment: normally os.environ.
        path: the file that must exist; None means `CORTEX_ACP_CONFIG`, or else the file in
            the user's configuration directory if there is one.

    Raises:
        SettingsError: a file cannot be read, or a value is wrong or unknown.
    """
    if path is None and (named := environment.get(f"{PREFIX}CONFIG")):
        path = Path(named)
    values: dict[str, Any] = {}
    source = "environment"
    default = config_home(environment) / "config.toml"
    if path is not None or default.is_file():
        source = str(path or default)
        values = read_toml(path or default)
    variables = _apply_environment(values, environment)
    settings: AgentSettings = convert(values, AgentSettings, source=source, variables=variables)
    _check(settings, source)
    return _with_keys(settings, environment)


def config_home(environment: Mapping[str, str]) -> Path:
    """Returns the directory of `config.toml` and of the user's own AGENTS.md."""
    return _xdg(environment, "XDG_CONFIG_HOME", ".config")


def state_home(environment: Mapping[str, str]) -> Path:
    """Returns the directory of the log file."""
    return _xdg(environment, "XDG_STATE_HOME", ".local/state")


def _xdg(environment: Mapping[str, str], variable: str, fallback: str) -> Path:
    configured = environment.get(variable, "")
    if Path(configured).is_absolute():
        return Path(configured) / "cortex-acp"
    return Path(environment.get("HOME", "/")) / fallback / "cortex-acp"


def _apply_environment(values: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Overrides agent settings, and the one endpoint when there is only one.

    Returns: dotted key to the variable that overrides it.
    """
    variables: dict[str, str] = {}
    for suffix, key in _AGENT_KEYS.items():
        if value := environment.get(PREFIX + suffix):
            values[key] = value
            variables[key] = PREFIX + suffix
    overrides = {
        key: value
        for suffix, key in _ENDPOINT_KEYS.items()
        if (value := environment.get(PREFIX + suffix))
    }
    if not overrides:
        return variables
    endpoints = values.setdefault("endpoints", [{}])
    if not isinstance(endpoints, list) or len(endpoints) != 1 or not isinstance(endpoints[0], dict):
        names = ", ".join(sorted(PREFIX + key for key in _ENDPOINT_KEYS))
        raise SettingsError(f"environment: {names} need exactly one endpoint in the file")
    endpoints[0].update(overrides)
    named = {key: PREFIX + suffix for suffix, key in _ENDPOINT_KEYS.items() if key in overrides}
    return variables | {f"endpoints[0].{key}": variable for key, variable in named.items()}


def _check(settings: AgentSettings, source: str) -> None:
    names = [endpoint.name for endpoint in settings.endpoints]
    if not names:
        raise SettingsError(f"{source}: endpoints: at least one is needed")
    if len(set(names)) != len(names):
        raise SettingsError(f"{source}: endpoints: names must differ, got {', '.join(names)}")
    if settings.default_endpoint and settings.default_endpoint not in names:
        raise SettingsError(f"{source}: default_endpoint: no endpoint {settings.default_endpoint}")


def _with_keys(settings: AgentSettings, environment: Mapping[str, str]) -> AgentSettings:
    endpoints: list[EndpointSettings] = []
    for endpoint in settings.endpoints:
        key = environment.get(endpoint.api_key_env, "") if endpoint.api_key_env else ""
        if endpoint.api_key_env and not key:
            raise SettingsError(f"endpoint {endpoint.name}: {endpoint.api_key_env} is not set")
        endpoints.append(msgspec.structs.replace(endpoint, api_key=key or endpoint.api_key))
    fleet = settings.fleet
    if fleet.api_key_env:
        key = environment.get(fleet.api_key_env, "")
        if not key:
            raise SettingsError(f"fleet: {fleet.api_key_env} is not set")
        fleet = msgspec.structs.replace(fleet, api_key=key)
    return msgspec.structs.replace(settings, endpoints=tuple(endpoints), fleet=fleet)
