"""What is simulated: how many neurons, which models, which load, which faults."""

from __future__ import annotations

import dataclasses
import random

from services.registry.catalogue import separation
from services.registry.catalogue.catalogue import Catalogue
from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.fleet.policy import Policy
from services.registry.fleet.records import CPU, GpuLayers, StoredModel

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Faults:
    """Chances and rates; 0 is never.

    Attributes:
        deaths: expected kills of a neuron, over the whole run and fleet.
        partitions: expected partitions of a neuron.
        squeezes: expected times that something else takes memory of a device.
        restarts: expected restarts of the registry, with models loaded and requests under way.
        slow: chance that a load takes ten times as long; fail: that it fails; short: that the
            catalogue says less memory than the model takes.
        lost: chance that a report is lost; late: that it is late and overtaken by newer ones.
    """

    deaths: float = 0.0
    partitions: float = 0.0
    squeezes: float = 0.0
    restarts: float = 0.0
    slow: float = 0.0
    fail: float = 0.0
    short: float = 0.0
    lost: float = 0.0
    late: float = 0.0


ALL_FAULTS = Faults(
    deaths=3,
    partitions=3,
    squeezes=3,
    restarts=1,
    slow=0.1,
    fail=0.1,
    short=0.15,
    lost=0.05,
    late=0.1,
)


QUICK = Policy(minimum_residency=2.0, patience=5.0, max_wait=120.0, settle=5.0, idle_timeout=30.0)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One kind of run.

    Attributes:
        seconds: how long requests come; `quiet_seconds` later everything must have ended.
        requests: how many, in bursts.
        long: share of them that run for half a minute, so that drains take as long.
        apart: share of models in an exclusive group, and of those kept apart from another.
        policy: as in production, but quicker.
    """

    neurons: int = 50
    models: int = 90
    requests: int = 150
    long: float = 0.03
    seconds: float = 20.0
    quiet_seconds: float = 400.0
    apart: float = 0.0
    faults: Faults = ALL_FAULTS
    policy: Policy = QUICK


WEEK = Scenario(
    neurons=3,
    models=8,
    requests=4000,
    seconds=7 * 86_400.0,
    faults=dataclasses.replace(ALL_FAULTS, deaths=40, partitions=40, squeezes=40, restarts=10),
    policy=dataclasses.replace(QUICK, idle_timeout=900.0),
)
"""Three neurons, four thousand requests, forty deaths, ten restarts of the registry."""
SMALL = Scenario(neurons=3, models=8, requests=60)
FIFTY = Scenario()
APART = dataclasses.replace(SMALL, neurons=6, models=12, requests=120, apart=0.4)
"""Models that are in each other's way by rule."""


def catalogue(dice: random.Random, count: int, neurons: int) -> Catalogue:
    """Models of 2 to 40 GiB, some pinned, some with replicas, some for two devices.

    Of a third nothing is configured: they are GGUF files, and counted by their layers.
    """
    profiles: dict[str, Profile] = {}
    for index in range(count):
        size = dice.choice((2, 4, 7, 12, 18, 22, 30, 40))
        pinned = dice.random() < 0.05 and neurons > 10
        terms = LoadTerms(source=f"path:/models/{index}")
        is_gguf = index % 3 == 2
        profiles[f"m{index}"] = Profile(
            f"m{index}",
            terms,
            terms.revision,
            memory_bytes=0 if is_gguf else size * GIB,
            devices=1,
            max_devices=2 if size > 20 and not is_gguf else 1,
            residency_class=dice.choice((100, 100, 100, 200)),
            labels={"zone": "a"} if dice.random() < 0.1 and neurons > 10 else {},
            affinity={"zone": "b"} if dice.random() < 0.2 else {},
            pinned=pinned,
            max_replicas=dice.choice((1, 1, 2, 3)),
        )
    return Catalogue(profiles, {}, 1)


def catalogue_of(dice: random.Random, scenario: Scenario) -> Catalogue:
    """The models of a scenario."""
    models = catalogue(dice, scenario.models, scenario.neurons)
    return kept_apart(dice, models, scenario.apart)


def kept_apart(dice: random.Random, models: Catalogue, share: float) -> Catalogue:
    """The same models, of which a share is in one of two exclusive groups, or kept from another.

    Args:
        dice: chance.
        models: as they are without.
        share: of the models that get each; with 0 nothing is thrown.
    """
    profiles = dict(models.profiles)
    for model in profiles if share else ():
        if dice.random() < share:
            group = dice.choice(("x", "y"))
            profiles[model] = dataclasses.replace(profiles[model], exclusive_group=group)
        if dice.random() < share:
            one, other = dice.sample([m for m in profiles if m != model], 2)
            profiles[model] = dataclasses.replace(
                profiles[model], apart_from=(one,), rather_apart_from=(other,)
            )
    return dataclasses.replace(models, profiles=separation.complete(profiles, "simulated"))


def files(dice: random.Random, models: Catalogue) -> dict[str, StoredModel]:
    """The GGUF files behind models of which nothing is configured, by model."""
    made: dict[str, StoredModel] = {}
    for profile in models.profiles.values():
        if profile.memory_bytes:
            continue
        layers = dice.choice((9, 17, 33, 61))
        on_gpus = dice.choice((2, 4, 7, 12, 18, 22, 30)) * GIB
        beside = dice.choice((0, 0, on_gpus // 20, on_gpus // 2))
        made[profile.model] = StoredModel(
            profile.model,
            profile.terms.source,
            on_gpus + beside,
            format="gguf",
            max_context_tokens=8192,
            cache_bytes_per_token=1 << 16,
            default_cache_tokens=8192,
            gpu_layers=GpuLayers(layers, layers, on_gpus, beside),
        )
    return made


def devices(dice: random.Random) -> dict[str, int]:
    """One or two GPUs of one size, and the host's memory."""
    count = dice.choice((1, 1, 1, 1, 2))
    size = dice.choice((16, 16, 24, 24, 48)) * GIB
    return {f"gpu{i}": size for i in range(count)} | {CPU: dice.choice((16, 32, 64)) * GIB}
