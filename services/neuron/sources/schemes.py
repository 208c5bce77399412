"""The sources of weights that a neuron has, by the scheme that names them."""

from __future__ import annotations

from collections.abc import Callable

from cortex.v1 import model_pb2 as model
from services.backplane.security.credentials import FleetCredentials
from services.neuron.settings import NeuronSettings
from services.neuron.sources.hub import HubSource
from services.neuron.sources.neighbours import NeighbourFiles
from services.neuron.sources.package import PackageSource
from services.neuron.sources.permitted import PermittedSources
from services.neuron.sources.resolver import Sources
from services.neuron.sources.source import PathSource
from services.neuron.weights.inspect import Weights
from services.neuron.weights.listing import Preference


def sources_of(
    settings: NeuronSettings,
    *,
    hub: HubSource,
    cache_tokens: Callable[[Weights], int],
    gpu_layers: Callable[[Weights], model.GpuLayers | None],
    preferred: Preference,
    resident: Callable[[Weights], int | None],
) -> Sources:
    """The sources that a neuron's settings describe: `path:`, `package:`, `hf:`.

    Args:
        settings: where downloads are kept, and from where they come.
        hub: the source of `hf:`.
        cache_tokens: that a load of weights takes where nothing else is asked for.
        gpu_layers: that a load of weights would put on GPUs here.
        preferred: of several quantisations of one model.
        resident: bytes of weights that are in the page cache; None: not known.
    """
    packages = PackageSource(settings.store, stall_seconds=settings.download_stall_seconds)
    return Sources(
        {"path": PathSource(), "package": packages, "hf": hub},
        named=settings.sources,
        permitted=PermittedSources(
            settings.allowed,
            folders=settings.model_folders,
            own=settings.sources.values(),
        ),
        folders=settings.model_folders,
        cache_tokens=cache_tokens,
        gpu_layers=gpu_layers,
        preferred=preferred,
        origin_of=hub.store.origin_of,
        resident=resident,
    )


def hub_of(settings: NeuronSettings, credentials: FleetCredentials | None) -> HubSource:
    """The source of `hf:`, which also has what neighbours may read.

    Args:
        settings: where downloads are kept, and from where they come.
        credentials: the fleet's, with which neighbours are asked; None: plain text.
    """
    stall_seconds = settings.download_stall_seconds
    return HubSource(
        settings.store,
        stall_seconds=stall_seconds,
        endpoint=settings.hf_endpoint,
        neighbours=NeighbourFiles(credentials, stall_seconds=stall_seconds),
    )
