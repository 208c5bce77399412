"""The facts in their objects, by a hash: what is secret in Secrets, the rest in ConfigMaps."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.kubernetes.api_server import ApiServer
from services.registry.store.kubernetes.claimed import ClaimedDocument, ClaimedObject
from services.registry.store.kubernetes.documents import ObjectKind, Place
from services.registry.store.store import FactKind, Facts, StoreError, facts_of

SHARDS: Final = 4
"""Objects of each kind. Never another number: where a key is is found by it."""
_SECRET: Final = frozenset({FactKind.KEY, FactKind.JOIN_TICKET})
_MOST_KEY_BYTES: Final = 4096


class FactTable(msgspec.Struct):
    """The facts in one object.

    Attributes:
        facts: by kind, then by key; kinds of a newer version are kept as they are.
    """

    facts: dict[str, dict[str, str]] = {}


def places(address: KubernetesAddress) -> dict[ObjectKind, list[Place]]:
    """Where facts are."""
    return {
        kind: [Place.of(address, kind, f"{name}-{number}") for number in range(SHARDS)]
        for kind, name in ((ObjectKind.CONFIG_MAP, "facts"), (ObjectKind.SECRET, "secrets"))
    }


class KubernetesFacts:
    """The facts, as the leader of one epoch writes them.

    Args:
        api: of the cluster.
        address: of the store.
        epoch: of the leader.
    """

    def __init__(self, api: ApiServer, address: KubernetesAddress, epoch: int) -> None:
        self._documents = {
            kind: [ClaimedDocument(ClaimedObject(api, place, epoch), FactTable) for place in those]
            for kind, those in places(address).items()
        }

    @property
    def documents(self) -> Sequence[ClaimedDocument[FactTable]]:
        """All of them."""
        return [document for those in self._documents.values() for document in those]

    def load(self) -> Facts:
        """All facts as they were written last."""
        return _facts(document.document for document in self.documents)

    async def put(self, kind: FactKind, key: str, value: str) -> None:
        """Writes a fact.

        Raises:
            StoreError: it could not be written.
        """
        if len(key.encode(errors="replace")) > _MOST_KEY_BYTES:
            raise StoreError(f"Kubernetes: a key has more than {_MOST_KEY_BYTES} bytes.")

        def apply(table: FactTable) -> None:
            table.facts.setdefault(kind.value, {})[key] = value

        await self._of(kind, key).change(apply)

    async def delete(self, kind: FactKind, key: str) -> None:
        """Removes a fact.

        Raises:
            StoreError: it could not be removed.
        """

        def apply(table: FactTable) -> None:
            table.facts.get(kind.value, {}).pop(key, None)

        await self._of(kind, key).change(apply)

    def _of(self, kind: FactKind, key: str) -> ClaimedDocument[FactTable]:
        those = self._documents[ObjectKind.SECRET if kind in _SECRET else ObjectKind.CONFIG_MAP]
        return those[zlib.crc32(f"{kind.value}/{key}".encode(errors="replace")) % SHARDS]


async def read_facts(api: ApiServer, address: KubernetesAddress) -> Facts:
    """All facts as they are, for one who does not lead.

    Raises:
        StoreError: they cannot be read.
    """
    asked = [place for those in places(address).values() for place in those]
    found = await asyncio.gather(*(ClaimedObject(api, place, 0).read() for place in asked))
    tables: list[FactTable] = []
    for place, content in zip(asked, found, strict=True):
        try:
            tables.append(msgspec.json.decode(content or b"{}", type=FactTable))
        except msgspec.DecodeError as error:
            raise StoreError(f"Kubernetes: {place} cannot be read: {error}") from error
    return _facts(tables)


def _facts(tables: Iterable[FactTable]) -> Facts:
    return facts_of(
        (kind, key, value)
        for table in tables
        for kind, those in table.facts.items()
        for key, value in those.items()
    )
