"""Settings from one TOML file and the environment, as frozen structs.

`CORTEX_GATEWAY__LISTEN=…` overrides `listen` in `[gateway]`. Any error names file (or variable),
key and reason, and is fatal: a service never starts on half-read settings. A variable that looks
like a setting and is none is such an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
import tomllib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar, cast

import msgspec

from services.backplane.quantities import read_quantities

DEFAULT_PATH: Final = pathlib.Path("/etc/cortex/cortex.toml")
PREFIX: Final = "CORTEX_"
# Read by commands, not by services; none is a setting.
COMMAND_VARIABLES: Final = frozenset(
    {
        "CORTEX_API_KEY",
        "CORTEX_CONFIG",
        "CORTEX_GATEWAY_URL",
        "CORTEX_JOIN_TOKEN",
        "CORTEX_REGISTRY_ADDRESS",
    }
)
# Every section that some service reads; anything else in the file is a mistake worth stopping for.
SECTIONS: Final = frozenset(
    {
        "gateway",
        "registry",
        "eviction",
        "neurons",
        "neuron",
        "auth",
        "fleet",
        "log",
        "audit",
        "telemetry",
    }
)
# `[acp]` is no section, but `CORTEX_ACP_` begins what the agent reads.
_AGENT_PREFIX: Final = "CORTEX_ACP_"
_UNKNOWN_FIELD: Final = re.compile(r"unknown field `(?P<field>.*)`$")
_AT = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<where>.*)`)?$", re.DOTALL)

# A value that is not shown to those who look at settings: `writeOnly` in JSON Schema.
Secret = Annotated[str, msgspec.Meta(extra_json_schema={"writeOnly": True})]

Section = TypeVar("Section", bound=msgspec.Struct)


class SettingsError(Exception):
    """Settings that cannot be used. The message names source, key and reason, and is for people."""


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """All sections, merged and not yet typed.

    Attributes:
        tables: section name to its content.
        source: the file's name for error messages, or `environment`.
        variables: dotted key to the environment variable that its value is from.
        environment: all variables, among which one that was meant as a setting is looked for.
        reread: reads file and environment once more; may raise `SettingsError`.
    """

    tables: Mapping[str, Any]
    source: str
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str], repr=False)
    reread: Callable[[], Document] | None = dataclasses.field(default=None, compare=False)

    def has(self, key: str) -> bool:
        """Whether file or environment sets a key, such as `gateway.listen`."""
        section, _, name = key.partition(".")
        return name in self.tables.get(section, {})

    def place(self, key: str) -> str:
        """Where a key that is set was set, for messages: `cortex.toml: gateway.listen`."""
        return f"{self.variables.get(key, self.source)}: {key}"

    def with_values(self, values: Mapping[str, Any]) -> Document:
        """The same settings with some replaced, by dotted key, also when they are read again."""
        tables: dict[str, Any] = dict(self.tables)
        for key, value in values.items():
            section, _, name = key.partition(".")
            tables[section] = {**tables.get(section, {}), name: value}
        reread = self.reread
        return dataclasses.replace(
            self,
            tables=tables,
            reread=None if reread is None else lambda: reread().with_values(values),
        )

    def section(self, name: str, kind: type[Section]) -> Section:
        """One section as its struct; an absent one gets all defaults.

        Raises:
            SettingsError: a key is unknown, missing or of the wrong type.
        """
        self._refuse_single_underscores(name, kind)
        return cast("Section", self._convert(name, self.tables.get(name, {}), kind))

    def entries(self, name: str, kind: type[Section]) -> tuple[Section, ...]:
        """A section that is an array of tables (`[[neurons]]`)."""
        value: Any = self.tables.get(name, [])
        many: Any = tuple.__class_getitem__((kind, ...))
        return cast("tuple[Section, ...]", self._convert(name, value, many))

    def _refuse_single_underscores(self, name: str, kind: type[msgspec.Struct]) -> None:
        for key in kind.__struct_fields__:
            variable = f"{PREFIX}{name}_{key}".upper()
            if variable in self.environment and variable not in COMMAND_VARIABLES:
                right = f"{PREFIX}{name}__{key}".upper()
                raise SettingsError(
                    f"{variable}: is not read; two underscores stand behind the section: {right}"
                )

    def _convert(self, name: str, value: Any, kind: Any) -> Any:
        return convert(value, kind, source=self.source, root=name, variables=self.variables)


def convert(
    value: Any,
    kind: Any,
    *,
    source: str,
    root: str = "",
    variables: Mapping[str, str] = MappingProxyType({}),
    strict: bool = False,
) -> Any:
    """A part of a settings document as its type; sizes and durations may be texts with units.

    Args:
        value: what a parser of TOML returned, with strings where the environment overrides it.
        kind: a struct, or a list or dictionary of such.
        source: the file's name, for error messages.
        root: the dotted key of this part; empty for the whole document.
        variables: dotted key to the environment variable that its value is from, which then is
            named in place of the file.
        strict: a text is no number, as in a file that the environment does not override.

    Raises:
        SettingsError: a key is unknown, missing or of the wrong type; the message names source,
            key and reason.
    """
    try:
        return msgspec.convert(read_quantities(value, kind), kind, strict=strict)
    except (msgspec.ValidationError, ValueError) as error:
        key, reason = _key_and_reason(root, str(error))
        unknown = _UNKNOWN_FIELD.search(reason)
        culprit = ".".join(filter(None, (key, unknown["field"]))) if unknown else key
        where = ": ".join(filter(None, (variables.get(culprit, source), key)))
        raise SettingsError(f"{where}: {reason}") from error


def _key_and_reason(root: str, complaint: str) -> tuple[str, str]:
    """Splits msgspec's complaint into the dotted key and the reason."""
    match = _AT.match(complaint)
    assert match is not None
    path = (match["where"] or "$").removeprefix("$").lstrip(".")
    key = f"{root}{path}" if path.startswith("[") else ".".join(filter(None, (root, path)))
    return key, match["reason"]


def load(path: pathlib.Path | None, environment: Mapping[str, str]) -> Document:
    """Reads the file and lays the environment over it.

    Args:
        path: the file; None means /etc/cortex/cortex.toml where that exists, else no file.
        environment: usually os.environ.

    Raises:
        SettingsError: the file is missing, unreadable or no TOML, or file or environment names
            an unknown section.
    """
    asked = path
    if path is None and DEFAULT_PATH.is_file():
        path = DEFAULT_PATH
    tables = {} if path is None else read_toml(path)
    source = "environment" if path is None else str(path)
    unknown = sorted(set(tables) - SECTIONS)
    if unknown:
        known = ", ".join(sorted(SECTIONS))
        raise SettingsError(f"{source}: {unknown[0]}: unknown section (known: {known})")
    variables: dict[str, str] = {}
    for variable, value in sorted(environment.items()):
        keys = _keys_of(variable)
        if keys:
            _override(tables, keys, value, variable)
            variables[".".join(keys)] = variable
    return Document(tables, source, variables, environment, reread=lambda: load(asked, environment))


def _keys_of(variable: str) -> tuple[str, ...]:
    """Section and key that a variable sets; none where it is no setting of ours.

    Raises:
        SettingsError: it has the form of a setting, of a section that there is not.
    """
    section, mark, key = variable.removeprefix(PREFIX).partition("__")
    if not variable.startswith(PREFIX) or variable.startswith(_AGENT_PREFIX) or not mark:
        return ()
    if section.lower() not in SECTIONS:
        near = difflib.get_close_matches(section.lower(), SECTIONS, 1)
        known = ", ".join(sorted(SECTIONS))
        hint = f"did you mean {PREFIX}{near[0].upper()}__{key}?" if near else f"known: {known}"
        raise SettingsError(f"{variable}: {section.lower()}: unknown section ({hint})")
    if not key:
        raise SettingsError(f"{variable}: names no key behind its section")
    return (section.lower(), *key.lower().split("__"))


def read_toml(path: pathlib.Path) -> dict[str, Any]:
    """A TOML file as a dictionary.

    Raises:
        SettingsError: it is missing, unreadable, not UTF-8, no TOML or nested too deep.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: is nested too deep") from error


def _override(tables: dict[str, Any], keys: tuple[str, ...], value: str, variable: str) -> None:
    table: Any = tables
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{variable}: {key}: is not a table")
    table[keys[-1]] = _value(value)


def _value(text: str) -> Any:
    """Arrays and tables are written as TOML; all else is a string that typing converts."""
    if text[:1] in {"[", "{"}:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            return text
    return text
