"""The catalogue: `models.toml` as frozen profiles, with every error fatal and named.

Reading is atomic: a file with any error changes nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from services.backplane.settings import SettingsError, convert, read_toml
from services.registry.catalogue import separation
from services.registry.catalogue.aliases import AliasEntry, to_rules
from services.registry.catalogue.file import BadEntryError, ModelEntry, Name, to_profile
from services.registry.catalogue.profile import AliasRules, Profile

_SECTIONS: Final = frozenset({"models", "aliases"})


@dataclasses.dataclass(frozen=True, slots=True)
class Catalogue:
    """All configured models.

    Attributes:
        profiles: by model id.
        aliases: alias to id; ids are not among them.
        revision: a number of the whole content; 0 for an empty catalogue.
    """

    profiles: Mapping[str, Profile]
    aliases: Mapping[str, str]
    revision: int = 0

    def resolve(self, name: str) -> str:
        """The model id behind a name; a name that is no alias is its own. Never chained."""
        return self.aliases.get(name, name)


EMPTY: Final = Catalogue(MappingProxyType({}), MappingProxyType({}))


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """What a reload changed, as model ids in order."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


def difference(old: Catalogue, new: Catalogue) -> Difference:
    """Compares two catalogues, entry by entry."""
    before, after = old.profiles, new.profiles
    both = before.keys() & after.keys()
    return Difference(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(sorted(m for m in both if before[m] != after[m])),
    )


def load(path: pathlib.Path) -> Catalogue:
    """Reads a catalogue file.

    Raises:
        SettingsError: it cannot be read or has an error; the message names file, key and reason.
    """
    return parse(read_toml(path), str(path))


def parse(tables: Mapping[str, Any], source: str) -> Catalogue:
    """Makes a catalogue of a parsed TOML document.

    Args:
        tables: the document.
        source: its name, for error messages.

    Raises:
        SettingsError: it has an error.
    """
    for section in sorted(set(tables) - _SECTIONS):
        raise SettingsError(f"{source}: {section}: unknown section (known: aliases, models)")
    entries: list[ModelEntry] = convert(
        tables.get("models", []), list[ModelEntry], source=source, root="models", strict=True
    )
    named = _named(tables.get("aliases", {}), source)
    aliases = {name: each if isinstance(each, str) else each.model for name, each in named.items()}
    profiles: dict[str, Profile] = {}
    for index, entry in enumerate(entries):
        profile = _profile(entry, f"{source}: models[{index}]")
        if profile.model in profiles:
            raise SettingsError(f"{source}: models[{index}].id: {profile.model!r} is there twice")
        profiles[profile.model] = profile
    profiles = separation.complete(profiles, source)
    resolved = _aliases(profiles.values(), aliases, source)
    rules = _rules(named, {model: model for model in profiles} | resolved, source)
    complete = {
        model: dataclasses.replace(
            profile,
            aliases=tuple(sorted(a for a, m in resolved.items() if m == model)),
            alias_rules=tuple(each for each in rules if resolved[each.alias] == model),
        )
        for model, profile in profiles.items()
    }
    return Catalogue(
        MappingProxyType(complete), MappingProxyType(resolved), _revision(complete.values())
    )


def _named(table: Any, source: str) -> dict[str, str | AliasEntry]:
    """`[aliases]`, entry by entry, so that errors name the alias."""
    names = convert(table, dict[str, Any], source=source, root="aliases", strict=True)
    found: dict[str, str | AliasEntry] = {}
    for alias, entry in names.items():
        root = f"aliases.{alias}"
        found[convert(alias, Name, source=source, root=root, strict=True)] = convert(
            entry, str | AliasEntry, source=source, root=root, strict=True
        )
    return found


def _profile(entry: ModelEntry, where: str) -> Profile:
    try:
        return to_profile(entry)
    except BadEntryError as error:
        raise SettingsError(f"{where}.{error}") from error


def _aliases(profiles: Iterable[Profile], table: Mapping[str, str], source: str) -> dict[str, str]:
    """One flat map of both spellings. A dead or doubled alias is an error, not a surprise later."""
    models = {p.model for p in profiles}
    pairs = [(alias, p.model, f"models {p.model!r}") for p in profiles for alias in p.aliases]
    pairs += [(alias, model, f"aliases.{alias}") for alias, model in table.items()]
    found: dict[str, str] = {}
    for alias, model, where in pairs:
        if alias in models:
            raise SettingsError(f"{source}: {where}: alias {alias!r} is a model's own id")
        if model not in models:
            raise SettingsError(f"{source}: {where}: {model!r} is no model of this catalogue")
        if found.setdefault(alias, model) != model:
            raise SettingsError(
                f"{source}: {where}: alias {alias!r} already means {found[alias]!r}"
            )
    return found


def _rules(
    entries: Mapping[str, str | AliasEntry], models: Mapping[str, str], source: str
) -> list[AliasRules]:
    """The rules of those aliases that have any, in the order of their names.

    Args:
        entries: by alias.
        models: the models' own names by all names.
        source: the file's name, for error messages.
    """
    found: list[AliasRules] = []
    for alias, entry in sorted(entries.items()):
        if isinstance(entry, str):
            continue
        where = f"{source}: aliases.{alias}.fallback: {entry.fallback!r}"
        if entry.fallback and entry.fallback not in models:
            raise SettingsError(f"{where} is no model of this catalogue")
        if models.get(entry.fallback) == entry.model:
            raise SettingsError(f"{where} is the model that cannot be served then")
        rules = to_rules(alias, entry)
        if not rules.is_empty:
            found.append(rules)
    return found


def _revision(profiles: Iterable[Profile]) -> int:
    content = sorted((p.content() for p in profiles), key=lambda c: str(c["model"]))
    if not content:
        return 0
    text = json.dumps(content, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") | 1
