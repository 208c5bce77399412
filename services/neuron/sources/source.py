"""One way to get weights, and the simplest: a path on this disk."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.neuron.sources.neighbour import Neighbour
from services.neuron.weights.inspect import Weights

# Bytes done and bytes in all; 0 in all is not known.
OnBytes = Callable[[int, int], None]


class WeightSource(Protocol):
    """Turns the text behind one scheme (`path:`, `hf:`) into weights on this disk."""

    def find(self, location: str, quant: str) -> pathlib.Path | None:
        """The file or folder where the weights already lie; None where they have to be fetched.

        Raises:
            FleetError: BAD_REQUEST, the text is malformed; MODEL_UNKNOWN, it names nothing.
        """
        ...

    async def fetch(
        self,
        location: str,
        quant: str,
        on_bytes: OnBytes,
        neighbours: Sequence[Neighbour] = (),
    ) -> pathlib.Path:
        """Fetches the weights. Cancelling leaves nothing behind that would count as weights.

        Args:
            location: what stands behind the scheme.
            quant: which of several files, for sources that can choose before the download.
            on_bytes: told how far it is.
            neighbours: other neurons that may have them, for sources that ask there first.

        Raises:
            FleetError: SOURCE_UNAVAILABLE, NO_ROOM, BAD_REQUEST, NOT_SUPPORTED, MODEL_UNKNOWN.
        """
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """A `WeightSource` that knows size and format before the download."""

    async def foresee(self, location: str, quant: str) -> Weights:
        """The weights as they will be; nothing is fetched, and bounded time is taken.

        Raises:
            FleetError: as `WeightSource.fetch`.
        """
        ...


@runtime_checkable
class Mending(Protocol):
    """A `WeightSource` that knows what its files have to be."""

    async def discard_damaged(self, location: str, quant: str) -> int:
        """Removes those files here that are not what the source has; the next fetch brings them.

        Returns: how many.

        Raises:
            FleetError: SOURCE_UNAVAILABLE, the disk refuses.
        """
        ...


class PathSource(WeightSource):
    """`path:/…`: weights that already lie on this disk."""

    @override
    def find(self, location: str, quant: str) -> pathlib.Path:
        path = pathlib.Path(location)
        try:
            path = path.expanduser()
            path.lstat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass  # told by who reads it
        except (OSError, ValueError, RuntimeError) as error:  # too long, with NUL, nobody's home
            raise FleetError(
                Reason.BAD_REQUEST, f"No such path can be: {error}.", field="spec.source"
            ) from error
        return path

    @override
    async def fetch(
        self,
        location: str,
        quant: str,
        on_bytes: OnBytes,
        neighbours: Sequence[Neighbour] = (),
    ) -> pathlib.Path:
        """The path itself; there is nothing to fetch."""
        return self.find(location, quant)
