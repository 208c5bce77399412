"""What the caches of all instances hold, for gateways that follow it as differences."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from cortex.v1 import neuron_service_pb2 as neuron
from services.neuron.engine_api.cache import CacheChanges, HeldPrefix
from services.neuron.instances.instances import Instances

MOST_HELD: Final = 2_048
"""Digests of one instance."""
_SETTLE_SECONDS: Final = 0.1
"""Changes within this long travel in one message."""


class _Picture:
    """What one instance holds."""

    def __init__(self) -> None:
        self.held: dict[bytes, HeldPrefix] = {}
        self.speeds = (0.0, 0.0)


class _Watcher:
    """What one follower has not been told yet: digests by instance, and whole pictures."""

    def __init__(self) -> None:
        self.changed: dict[str, set[bytes]] = {}
        self.whole: set[str] = set()
        self.news = asyncio.Event()

    def note(self, instance_id: str, digests: set[bytes]) -> None:
        self.changed.setdefault(instance_id, set()).update(digests)
        self.news.set()

    def start_over(self, instance_id: str) -> None:
        self.whole.add(instance_id)
        self.note(instance_id, set())


class CacheBoard:
    """Keeps what workers report of their caches, and streams it to followers.

    Bounds: `MOST_HELD` digests of an instance; of what a slow follower was not told only the names
    of the digests are kept, and the newest state goes out.
    """

    def __init__(self, instances: Instances) -> None:
        self._instances = instances
        self._pictures: dict[str, _Picture] = {}
        self._watchers: set[_Watcher] = set()
        self._is_closed = False

    def note(self, instance_id: str, news: CacheChanges) -> None:
        """Takes in a worker's report on an instance's cache."""
        if self._instances.get(instance_id) is None:
            return
        picture = self._pictures.setdefault(instance_id, _Picture())
        for digest in news.dropped:
            picture.held.pop(digest, None)
        for one in news.held:
            if one.digest in picture.held or len(picture.held) < MOST_HELD:
                picture.held[one.digest] = one
        picture.speeds = (news.seconds_per_token, news.seconds_per_request)
        changed = {*news.dropped, *(one.digest for one in news.held)}
        for watcher in self._watchers:
            watcher.note(instance_id, changed)

    def forget(self, instance_id: str) -> None:
        """Drops an instance's entries: its worker and cache are gone."""
        if self._pictures.pop(instance_id, None) is not None:
            for watcher in self._watchers:
                watcher.start_over(instance_id)

    def close(self) -> None:
        """Ends what follows: the neuron is about to end."""
        self._is_closed = True
        for watcher in self._watchers:
            watcher.news.set()

    async def follow(self) -> AsyncGenerator[neuron.WatchCacheResponse]:
        """Yields all that is held, then each change, until the reader stops."""
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            for instance_id in self._pictures:
                watcher.start_over(instance_id)
            yield self._response(watcher)
            while not self._is_closed:
                await watcher.news.wait()
                await asyncio.sleep(_SETTLE_SECONDS)
                yield self._response(watcher)
        finally:
            self._watchers.discard(watcher)

    def _response(self, watcher: _Watcher) -> neuron.WatchCacheResponse:
        for instance_id in [name for name in self._pictures if self._instances.get(name) is None]:
            self.forget(instance_id)
        changed, watcher.changed = watcher.changed, {}
        whole, watcher.whole = watcher.whole, set()
        watcher.news.clear()
        return neuron.WatchCacheResponse(
            changes=[
                self._change(instance_id, digests, whole=instance_id in whole)
                for instance_id, digests in changed.items()
            ]
        )

    def _change(self, instance_id: str, digests: set[bytes], *, whole: bool) -> neuron.CacheChange:
        picture = self._pictures.get(instance_id) or _Picture()
        told = picture.held.keys() if whole else digests
        return neuron.CacheChange(
            instance_id=instance_id,
            whole=whole,
            held=[
                neuron.HeldPrefix(
                    digest=one.digest, tokens=one.tokens, restore_seconds=one.restore_seconds
                )
                for one in map(picture.held.get, told)
                if one is not None
            ],
            dropped=[] if whole else [one for one in digests if one not in picture.held],
            seconds_per_token=picture.speeds[0],
            seconds_per_request=picture.speeds[1],
        )
