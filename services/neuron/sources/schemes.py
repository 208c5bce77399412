"""The sources of weights that a neuron has, by the scheme that names them."""

from __future__ import annotations

from collections.abc import Callable

from services.neuron.settings import NeuronSettings
from services.neuron.sources.hub import HubSource
from services.neuron.sources.package import PackageSource
from services.neuron.sources.resolver import Sources
from services.neuron.sources.source import PathSource
from services.neuron.weights.inspect import Weights


def sources_of(settings: NeuronSettings, cache_tokens: Callable[[Weights], int]) -> Sources:
    """The sources that a neuron's settings describe: `path:`, `package:`, `hf:`.

    Args:
        settings: where downloads are kept, and from where they come.
        cache_tokens: that a load of weights takes where nothing else is asked for.
    """
    stall_seconds = settings.download_stall_seconds
    return Sources(
        {
            "path": PathSource(),
            "package": PackageSource(settings.store, stall_seconds=stall_seconds),
            "hf": HubSource(
                settings.store, stall_seconds=stall_seconds, endpoint=settings.hf_endpoint
            ),
        },
        named=settings.sources,
        folders=settings.model_folders,
        cache_tokens=cache_tokens,
    )
