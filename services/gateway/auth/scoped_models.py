"""The part of a list of models that a key is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from services.gateway.auth.scopes import Scopes
from services.gateway.dialects.lookup import ListedModel


def within(scopes: Scopes, models: Sequence[ListedModel]) -> Sequence[ListedModel]:
    """The models that the scopes allow, each by a name that they allow."""
    if not scopes.have_models:
        return models
    found: list[ListedModel] = []
    for one in models:
        if scopes.allow_model(one.model, one.model):
            found.append(one)
            continue
        allowed = [alias for alias in one.aliases if scopes.allow_model(alias, alias)]
        if allowed:
            rest = tuple(allowed[1:])
            found.append(dataclasses.replace(one, model=allowed[0], aliases=rest))
    return found
