"""A gateway before a registry with keys: the real directory and its service, and no file of keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from cortex.v1 import key_service_pb2 as pb
from services.gateway.settings import AuthSettings
from tests.doubles.stand_in_registry import KeyTerm
from tests.integration.gateway.fleet import SECONDS, Fleet


class KeyedFleet(Fleet):
    """A fleet whose registry keeps keys."""

    @property
    def keys(self) -> Any:
        """The registry's directory."""
        assert self.registry.term is not None
        return self.registry.term.keys

    async def key(self, name: str, **more: Any) -> str:
        """Makes a key; its text, once the gateway knows it."""
        secret, _ = await self.keys.create(pb.CreateKeyRequest(name=name, **more))
        await self.followed()
        return secret

    async def followed(self) -> None:
        """Waits until the gateway knows what the registry does."""
        store = self.gateway.services.auth.store
        async with asyncio.timeout(SECONDS):
            while store.revision != self.keys.revisions.revision or not store.has_keys:
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def keyed_fleet(
    auth: AuthSettings | None = None, **settings: Any
) -> AsyncGenerator[KeyedFleet]:
    """A fleet with the models `tiny` and `other`, and one neuron that has both."""
    fleet = KeyedFleet()
    term = fleet.registry.term = await KeyTerm.made()
    await fleet.start(auth, **settings)
    try:
        fleet.registry.add_model("other", ["second"])
        await fleet.add_neuron("n1", models=("tiny", "other"))
        yield fleet
    finally:
        await fleet.stop()
        await term.store.close()


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}
