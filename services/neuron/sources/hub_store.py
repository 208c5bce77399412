"""The repositories of a hub that this neuron has fetched, on its disk.

`OWNER/NAME@REVISION/…`, beside what the revision meant when it was looked up. Whatever is not whole
lies in hidden folders.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
import shutil
from collections.abc import Generator, Sequence
from typing import Final

import msgspec
import structlog

from cortex.v1 import storage_service_pb2 as pb
from services.backplane.errors import FleetError, Reason
from services.neuron.sources.disk_space import file_bytes, folder_bytes
from services.neuron.sources.hub_files import HubFile, HubListing, HubModel

_LISTING: Final = ".listing.json"
# OWNER/NAME@REVISION and something in it.
_REPOSITORY_PARTS: Final = 3
_COMMIT_LETTERS: Final = 12

log = structlog.get_logger()


@dataclasses.dataclass(slots=True)
class Arrival:
    """A fetch that is running, as neighbours may ask for its files.

    Attributes:
        listing: of the repository, once that is known.
        folder: where its files come, once there is one.
    """

    listing: HubListing | None = None
    folder: pathlib.Path | None = None


class HubStore:
    """What lies in the store, and what of it is arriving."""

    def __init__(self, root: pathlib.Path) -> None:
        """Reads nothing yet.

        Args:
            root: the folder of all owners; it need not be there.
        """
        self.root = root
        self._arriving: dict[str, Arrival] = {}

    def folder(self, wanted: HubModel) -> pathlib.Path:
        """Where the files of a repository lie once they are whole."""
        return self.root / wanted.owner / f"{wanted.name}@{wanted.revision}"

    def listing(self, wanted: HubModel) -> HubListing | None:
        """The files of a revision as the hub last listed them; None where none are here. Blocks."""
        try:
            content = (self.folder(wanted) / _LISTING).read_bytes()
            return msgspec.json.decode(content, type=HubListing)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("hub.listing_unreadable", model=str(wanted), error=str(error))
            return None

    def arriving_folder(self, wanted: HubModel, listing: HubListing) -> pathlib.Path:
        """Where files come before they are whole; bytes of two commits do not mix.

        Hidden: a model that is half there must not be listed.
        """
        folder = self.folder(wanted)
        return folder.parent / f".{folder.name}.{listing.commit[:_COMMIT_LETTERS]}"

    def unfinished(self) -> list[tuple[str, pathlib.Path]]:
        """Origins and folders of files that are not whole and that no fetch is at. Blocks."""
        found: list[tuple[str, pathlib.Path]] = []
        with contextlib.suppress(OSError):  # folders come and go
            for folder in self.root.glob("*/.*@*.*"):
                name, _, _ = folder.name[1:].rpartition(".")
                repository = f"{folder.parent.name}/{name}"
                if repository not in self._arriving and folder.is_dir():
                    found.append((f"hf:{repository}", folder))
        return found

    def discard_unfinished(self, origin: str) -> int:
        """Removes what ended fetches of a repository have left. Blocks.

        Returns: bytes that were freed.

        Raises:
            FleetError: NOT_FOUND, they have left nothing.
        """
        folders = [folder for one, folder in self.unfinished() if one == origin]
        if not folders:
            told = f"No unfinished download of {origin} lies here."
            raise FleetError(Reason.NOT_FOUND, told, field="model")
        freed = sum(map(folder_bytes, folders))
        for folder in folders:
            shutil.rmtree(folder)
        return freed

    @contextlib.contextmanager
    def arriving(self, wanted: HubModel) -> Generator[Arrival]:
        """Offers files to neighbours while they arrive, as long as the context is open."""
        made = self._arriving[str(wanted)] = Arrival()
        try:
            yield made
        finally:
            del self._arriving[str(wanted)]

    def described(self, origin: str) -> pb.DescribeFilesResponse:
        """What lies here of a repository, and what of it is arriving. Blocks.

        Args:
            origin: `hf:OWNER/NAME@REVISION`.

        Raises:
            FleetError: BAD_REQUEST, it is not of that form.
        """
        wanted = HubModel.parse(origin.removeprefix("hf:"))
        arriving = self._arriving.get(str(wanted))
        listing = self.listing(wanted) or (arriving.listing if arriving else None)
        answer = pb.DescribeFilesResponse()
        if arriving is not None:
            answer.arriving_bytes = folder_bytes(arriving.folder) if arriving.folder else 0
        if listing is not None:
            answer.commit = listing.commit
            files, folder = listing.inside(), self.folder(wanted)
            for file in files:
                answer.files.add(path=file.path, size=file.size, sha256=file.sha256)
            answer.whole.extend(f.path for f in files if _is_whole(folder / f.path, f.size))
        return answer

    def file_of(self, origin: str, commit: str, path: str) -> pathlib.Path:
        """A file that lies here whole. Blocks.

        Raises:
            FleetError: NOT_FOUND, it does not, or is of another commit; BAD_REQUEST.
        """
        wanted = HubModel.parse(origin.removeprefix("hf:"))
        listing = self.listing(wanted)
        if listing is not None and listing.commit == commit:
            for file in listing.inside():
                found = self.folder(wanted) / file.path
                if file.path == path and _is_whole(found, file.size):
                    return found
        raise FleetError(Reason.NOT_FOUND, f"{path!r} of {wanted} is not here.", field="path")

    def origin_of(self, path: pathlib.Path) -> str:
        """`hf:OWNER/NAME@REVISION` of a file or folder in the store; empty for all others."""
        if not path.is_relative_to(self.root):
            return ""
        inside = path.relative_to(self.root).parts
        is_folder = len(inside) == _REPOSITORY_PARTS - 1
        if len(inside) < _REPOSITORY_PARTS - 1 or "@" not in inside[1]:
            return ""
        if is_folder and not (path / _LISTING).is_file():
            return ""
        return f"hf:{inside[0]}/{inside[1]}"


def missing(folder: pathlib.Path, files: Sequence[HubFile]) -> list[HubFile]:
    """Those of some files that are not completely in a folder. Blocks."""
    return [file for file in files if not _is_whole(folder / file.path, file.size)]


def discard(folder: pathlib.Path, files: Sequence[HubFile]) -> list[str]:
    """Removes those that are not what the hub said. Blocks as long as reading them takes.

    Returns: their paths.
    """
    gone: list[str] = []
    for file in files:
        path = folder / file.path
        if not file.sha256 or not path.is_file():
            continue
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != file.sha256:
            path.unlink()
            gone.append(file.path)
    return gone


def keep(
    listing: HubListing, files: Sequence[HubFile], arriving: pathlib.Path, folder: pathlib.Path
) -> None:
    """Moves whole files into the store, after the listing by which they are found. Blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = arriving / _LISTING
    draft.write_bytes(msgspec.json.encode(listing))
    draft.replace(folder / _LISTING)
    for file in files:
        kept = folder / file.path
        kept.parent.mkdir(parents=True, exist_ok=True)
        (arriving / file.path).replace(kept)
    shutil.rmtree(arriving, ignore_errors=True)


def _is_whole(path: pathlib.Path, size: int) -> bool:
    return file_bytes(path) == size
