"""When each model on this disk was last in use, kept over restarts of the neuron."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterable
from typing import Final

import msgspec

from cortex.v1 import model_pb2 as model
from services.backplane.protobuf_time import timestamp
from services.neuron.instances.instances import Instance

_FILE: Final = ".last-used.json"
_MINUTE: Final = 60
_MOST_KEPT: Final = 2_000
_Times = dict[str, int]


class LastUse:
    """Times by source (`path:…`), to the minute: a status must not change with every request."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Reads what was kept, if anything was.

        Args:
            folder: of the model store; it need not be there.
        """
        self._path = folder / _FILE
        self._times: _Times = {}
        with contextlib.suppress(OSError, msgspec.DecodeError):
            self._times = msgspec.json.decode(self._path.read_bytes(), type=_Times)
        self._kept = dict(self._times)

    def note(self, instances: Iterable[Instance]) -> None:
        """Notes when these instances were last in use; those that run requests are so now."""
        for instance in instances:
            if instance.weights is not None:
                at = time.time() if instance.running else instance.last_used_at
                minute = int(max(at, instance.loaded_at)) // _MINUTE * _MINUTE
                source = instance.weights.source
                self._times[source] = max(minute, self._times.get(source, 0))

    def tell(self, stored: Iterable[model.StoredModel]) -> None:
        """Sets `last_used_at` of the models in a listing."""
        for one in stored:
            at = self._times.get(one.source)
            if at:
                one.last_used_at.CopyFrom(timestamp(float(at)))

    def keep(self) -> None:
        """Writes what has changed since the last time, where the disk lets it. Blocks."""
        if self._times == self._kept:
            return
        newest = sorted(self._times.items(), key=lambda one: one[1])[-_MOST_KEPT:]
        draft = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):
            draft.write_bytes(msgspec.json.encode(dict(newest)))
            draft.replace(self._path)
            self._kept = dict(self._times)
