"""Which models are kept apart: completes exclusive groups and anti-affinity both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from services.backplane.settings import SettingsError
from services.registry.catalogue.profile import Profile


def complete(profiles: Mapping[str, Profile], source: str) -> dict[str, Profile]:
    """Copies of the profiles in which each model also names those that name it.

    What is required goes before what is preferred, whichever of the two says which.

    Args:
        profiles: by model, each with what its own entry says.
        source: the file's name, for error messages.

    Raises:
        SettingsError: an entry names itself, or no model of this catalogue.
    """
    required: dict[str, set[str]] = {model: set() for model in profiles}
    preferred: dict[str, set[str]] = {model: set() for model in profiles}
    groups: dict[str, set[str]] = {}
    for model, profile in profiles.items():
        for key, others, into in (
            ("required", profile.apart_from, required),
            ("preferred", profile.rather_apart_from, preferred),
        ):
            where = f"{source}: models {model!r}.anti_affinity.{key}"
            for other in others:
                if other == model:
                    raise SettingsError(
                        f"{where}: {other!r} is the model itself; its instances are on different "
                        "neurons in any case"
                    )
                if other not in profiles:
                    raise SettingsError(f"{where}: {other!r} is no model of this catalogue")
                into[model].add(other)
                into[other].add(model)
        if profile.exclusive_group:
            groups.setdefault(profile.exclusive_group, set()).add(model)
    return {
        model: dataclasses.replace(
            profile,
            exclusive_with=tuple(sorted(groups.get(profile.exclusive_group, set()) - {model})),
            apart_from=tuple(sorted(required[model])),
            rather_apart_from=tuple(sorted(preferred[model] - required[model])),
        )
        for model, profile in profiles.items()
    }
