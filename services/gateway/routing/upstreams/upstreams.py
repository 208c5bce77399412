"""The other servers that answer for models, by these models' names."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import Generator, Sequence

from prometheus_client import CollectorRegistry

from services.backplane.process.faults import Faults
from services.gateway.dialects.lookup import ListedModel
from services.gateway.routing.upstreams.breaker import Breaker
from services.gateway.settings import GatewaySettings
from services.gateway.telemetry.upstreams import UpstreamMetrics
from services.gateway.transports.upstream.settings import ANY, UpstreamSettings, check_files
from services.gateway.transports.upstream.upstream import Upstream


class Upstreams:
    """All entries of `[[gateway.upstreams]]`.

    Args:
        settings: the `[gateway]` section.
        registry: of Prometheus.
        faults: notes what a sink raises.

    Raises:
        SettingsError: a key or a file of authorities cannot be read.

    Attributes:
        metrics: counts what is sent to them.
    """

    def __init__(
        self, settings: GatewaySettings, registry: CollectorRegistry, faults: Faults
    ) -> None:
        self.metrics = UpstreamMetrics(registry)
        self._window_tokens = settings.window_tokens
        self._faults = faults
        self._leaving: set[Upstream] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._all: tuple[Upstream, ...] = ()
        self._serving: dict[str, tuple[Upstream, ...]] = {}
        self._for_any: tuple[Upstream, ...] = ()
        self._breakers: dict[Upstream, Breaker] = {}
        self._put(self._made(settings.upstreams))

    @property
    def are_none(self) -> bool:
        """Whether no other server is asked for anything."""
        return not self._all

    def check(self, entries: Sequence[UpstreamSettings]) -> None:
        """Reads all that entries name.

        Raises:
            SettingsError: a key or a file of authorities cannot be read.
        """
        check_files(entries, "gateway.upstreams")

    def read_keys(self) -> None:
        """Sends the keys that their files have now.

        Raises:
            SettingsError: one cannot be read; the one from before is sent.
        """
        for one in self._all:
            one.read_key()

    def use(self, entries: Sequence[UpstreamSettings]) -> None:
        """Asks these from now on; those that are as before stay. What runs elsewhere goes on.

        Raises:
            SettingsError: a key or a file of authorities cannot be read; nothing is changed.
        """
        before = self._all
        self._put(self._made(entries))
        for one in before:
            if one in self._all:
                continue
            self._leaving.add(one)
            task = asyncio.create_task(self._leave(one))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def serving(self, model: str) -> tuple[Upstream, ...]:
        """Those that answer for a model, in the order in which they are asked; none: ()."""
        return self._serving.get(model, self._for_any)

    def have(self, model: str) -> bool:
        """Whether the settings name a model."""
        return model in self._serving

    def is_never_here(self, model: str) -> bool:
        """Whether the fleet is not asked for a model."""
        return any(one.settings.when == "always" for one in self.serving(model))

    @contextlib.contextmanager
    def asking(self, one: Upstream, count: int = 1) -> Generator[int]:
        """Counts a request and takes places for it while the context is open.

        Args:
            one: who is asked.
            count: of the request's choices.

        Yields:
            How many of them may run at one time.

        Raises:
            FleetError: QUEUE_FULL: there is no place; UPSTREAM_FAILED: the server rests.
        """
        breaker = self._breakers.get(one)  # none of one that is about to go
        guarded = breaker.guarded() if breaker else contextlib.nullcontext()
        with self.metrics.counted(one.settings.name), one.places(count) as most, guarded:
            yield most

    def with_theirs(self, models: Sequence[ListedModel]) -> list[ListedModel]:
        """A list of the fleet's models with those of the upstreams, which stand behind them."""
        found = [
            dataclasses.replace(one, upstreams=self._names(one.model))
            if self.serving(one.model)
            else one
            for one in models
        ]
        known = {name for one in models for name in (one.model, *one.aliases)}
        found += (
            ListedModel(name, upstreams=self._names(name), is_of_fleet=False)
            for name in sorted(self._serving.keys() - known)
        )
        return found

    async def close(self) -> None:
        """Ends everything that runs there."""
        for task in tuple(self._closing):
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for one in (*self._all, *self._leaving):
            await one.close()

    async def _leave(self, one: Upstream) -> None:
        await one.leave()
        self._leaving.discard(one)

    def _names(self, model: str) -> tuple[str, ...]:
        return tuple(one.settings.name for one in self.serving(model))

    def _made(self, entries: Sequence[UpstreamSettings]) -> tuple[Upstream, ...]:
        return tuple(
            self._kept(one)
            or Upstream(
                one,
                place=f"gateway.upstreams[{index}]",
                window_tokens=self._window_tokens,
                faults=self._faults,
            )
            for index, one in enumerate(entries)
        )

    def _kept(self, entry: UpstreamSettings) -> Upstream | None:
        """The one that is there already by these settings."""
        return next((one for one in self._all if one.settings == entry), None)

    def _put(self, made: tuple[Upstream, ...]) -> None:
        gone = {one.settings.name for one in self._all} - {one.settings.name for one in made}
        for name in gone:
            self.metrics.forget(name)
        self._breakers = {one: self._breakers.get(one) or self._breaker(one) for one in made}
        self._all = made
        names = {name for one in made for name in one.settings.names if name != ANY}
        self._serving = {name: _of(made, name) for name in names}
        self._for_any = _of(made, ANY)

    def _breaker(self, one: Upstream) -> Breaker:
        name = one.settings.name
        self.metrics.set_up(name, True)
        return Breaker(
            one.words,
            one.settings.rest_seconds,
            on_change=functools.partial(self.metrics.set_up, name),
        )


def _of(upstreams: Sequence[Upstream], model: str) -> tuple[Upstream, ...]:
    return tuple(one for one in upstreams if one.settings.theirs(model) is not None)
