"""A document in a ConfigMap or Secret: JSON that people can read, or packed where it is large."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import zlib
from typing import Any, Final

from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.kubernetes.api_server import Body
from services.registry.store.kubernetes.lease import EPOCH
from services.registry.store.store import StoreError

MOST_BYTES: Final = 1_000_000
"""Of one document, packed: an object has 1 MiB at most."""
_PLAIN_BYTES: Final = 64_000
# A tenth larger than by the usual one, in an eighth of the time.
_LEVEL: Final = 1
_PLAIN: Final = "records.json"
_PACKED: Final = "records.json.zlib"
# Of what is unpacked: more than any document that fits.
_MOST_UNPACKED: Final = 64 << 20


class TooLargeError(StoreError):
    """A document does not fit in one object."""


class ObjectKind(enum.Enum):
    """The kinds of objects that documents are in; the value is what paths say."""

    CONFIG_MAP = "configmaps"
    SECRET = "secrets"  # noqa: S105 - a kind


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a document is.

    Attributes:
        kind: of the object.
        namespace: of the object.
        name: of the object.
    """

    kind: ObjectKind
    namespace: str
    name: str

    @classmethod
    def of(cls, address: KubernetesAddress, kind: ObjectKind, suffix: str) -> Place:
        """The place of one of a store's documents."""
        return cls(kind, address.namespace, f"{address.name}-{suffix}")

    @property
    def collection(self) -> str:
        """The path of all objects of its kind."""
        return f"/api/v1/namespaces/{self.namespace}/{self.kind.value}"

    @property
    def path(self) -> str:
        """The path of the object."""
        return f"{self.collection}/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind.value}/{self.name}"


def packed(content: bytes) -> bytes:
    """A document as it is kept where it is large."""
    return zlib.compress(content, _LEVEL)


def body_of(place: Place, content: bytes, *, metadata: Body, epoch: int) -> Body:
    """The object as it is written.

    Args:
        place: of the document.
        content: JSON.
        metadata: of the object as it was read, kept but for the epoch; empty for a new one.
        epoch: of the leader that writes it.

    Raises:
        TooLargeError: the document does not fit in one object.
    """
    is_packed = len(content) > _PLAIN_BYTES
    kept = packed(content) if is_packed else content
    if len(kept) > MOST_BYTES:
        raise TooLargeError(
            f"Kubernetes: {place} would have {len(kept)} bytes, and {MOST_BYTES} are the most: "
            "this fleet's records are too many for ConfigMaps and Secrets, and fit in PostgreSQL."
        )
    key = _PACKED if is_packed else _PLAIN
    known: Any = metadata.get("annotations")
    names = {"name": place.name, "namespace": place.namespace}
    notes = (known if isinstance(known, dict) else {}) | {EPOCH: str(epoch)}
    body: Body = {
        "apiVersion": "v1",
        "kind": "Secret" if place.kind is ObjectKind.SECRET else "ConfigMap",
        "metadata": metadata | names | {"annotations": notes},
    }
    if place.kind is ObjectKind.SECRET:
        return body | {"type": "Opaque", "data": {key: base64.b64encode(kept).decode()}}
    if is_packed:
        return body | {"binaryData": {key: base64.b64encode(kept).decode()}}
    return body | {"data": {key: kept.decode()}}


def content_of(place: Place, body: Body) -> bytes:
    """The document in an object, as JSON; empty where there is none yet.

    Raises:
        StoreError: it cannot be read.
    """
    data, binary = (_texts(body.get(name)) for name in ("data", "binaryData"))
    try:
        if place.kind is ObjectKind.CONFIG_MAP:
            if _PACKED in binary:
                return unpacked(base64.b64decode(binary[_PACKED], validate=True))
            return data.get(_PLAIN, "").encode()
        if _PACKED in data:
            return unpacked(base64.b64decode(data[_PACKED], validate=True))
        return base64.b64decode(data.get(_PLAIN, ""), validate=True)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise StoreError(f"Kubernetes: {place} cannot be read: {error}") from error


def unpacked(kept: bytes) -> bytes:
    """A document that was packed.

    Raises:
        ValueError: it is cut, or too large.
        zlib.error: it is no packed document.
    """
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(kept, _MOST_UNPACKED)
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise ValueError("it is cut, or larger than any that was written")
    return content


def _texts(value: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}
