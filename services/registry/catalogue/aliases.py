"""Aliases of `models.toml`: other names of models, with rules for the requests that use them."""

from __future__ import annotations

from typing import Literal

import msgspec

from services.registry.catalogue.file import Count, Name, SamplingEntry
from services.registry.catalogue.profile import AliasRules, RequestValues, SamplingDefaults

Stripped = Literal[
    "frequency_penalty",
    "logit_bias",
    "max_tokens",
    "min_p",
    "min_tokens",
    "presence_penalty",
    "reasoning",
    "repetition_penalty",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tools",
    "top_k",
    "top_p",
    "typical_p",
]


class RequestEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`default` and `force` of an alias: what its requests get.

    Attributes:
        max_tokens: most tokens of an answer.
        reasoning: whether the model thinks before it answers.
        sampling: as in `[models.sampling]`.
    """

    max_tokens: Count | None = None
    reasoning: bool | None = None
    sampling: SamplingEntry = SamplingEntry()


class AliasEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[aliases.NAME]`: another name of a model, and what becomes of the requests that use it.

    Requests by another name are as they are. First `strip`, then `default`, then `force`.

    Attributes:
        model: the model's own name.
        system: put before the system prompt of a chat, or in its place where it has none.
        default: what a request gets where it sets nothing.
        force: what it gets whatever it sets.
        strip: what is taken out of it, by OpenAI's names.
        fallback: another model, or an alias of one, that answers where this one cannot be served.
    """

    model: Name
    system: str = ""
    default: RequestEntry = RequestEntry()
    force: RequestEntry = RequestEntry()
    strip: tuple[Stripped, ...] = ()
    fallback: str = ""


def to_rules(alias: str, entry: AliasEntry) -> AliasRules:
    """The rules in an alias's entry; which model it stands for is not part of them."""
    return AliasRules(
        alias=alias,
        system=entry.system,
        default=_values(entry.default),
        force=_values(entry.force),
        strip=entry.strip,
        fallback=entry.fallback,
    )


def _values(entry: RequestEntry) -> RequestValues:
    return RequestValues(
        max_tokens=entry.max_tokens,
        reasoning=entry.reasoning,
        sampling=SamplingDefaults(**msgspec.structs.asdict(entry.sampling)),
    )
