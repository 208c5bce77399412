"""Talks to a Hugging Face hub, in a process of its own.

Run as `python -m services.neuron.sources.hub_download`.

The job comes as JSON on standard input; lines of JSON on standard output tell how far it is, the
last one how it ended. A process can be ended at any moment, a library's thread cannot; what it had
by then lies in `*.part` files and is where the next one goes on.
"""

from __future__ import annotations

import concurrent.futures
import errno
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Final

import msgspec

from services.backplane.errors import FleetError, Reason
from services.neuron.sources.checksum import check_file
from services.neuron.sources.disk_space import file_bytes
from services.neuron.sources.hub_files import HubFile, HubListing

_AT_A_TIME: Final = 4
_GLANCE_SECONDS: Final = 0.25
_CONFIG: Final = "config.json"
_MOST_CONFIG_BYTES: Final = 4 << 20
# The hub serves larger files through its own protocol alone.
HTTP_LIMIT_BYTES: Final = 50_000_000_000
_TOO_MANY: Final = 429
_REFUSED: Final = frozenset({401, 403})
_PAGE: Final = re.compile(r"<(?:!doctype|html)", re.IGNORECASE)
_RESET: Final = re.compile(r"\bt\s*=\s*(?P<seconds>\d+)")
"""In the header `RateLimit`: `"api";r=0;t=55`."""
_GONE: Final = frozenset({"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"})


class HubJob(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: list a repository, or bring files of one commit.

    Attributes:
        repository: `OWNER/NAME`.
        revision: to look up; a commit where files are brought.
        endpoint: the hub; empty is the library's own choice.
        folder: where to put the files; None lists.
        files: which.
        wants_config: a listing brings the text of `config.json` along.
        http_limit_bytes: larger files go another way.
    """

    repository: str
    revision: str
    endpoint: str = ""
    folder: str | None = None
    files: tuple[HubFile, ...] = ()
    wants_config: bool = False
    http_limit_bytes: int = HTTP_LIMIT_BYTES


class HubProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line that the downloading process writes: bytes so far, the end, or an error.

    Attributes:
        done: bytes that are here, in all.
        checked: bytes whose digest has been checked.
        listing: of a listing job, last.
        config: of a listing job that wants it.
        reason: of a job that failed, last: a name of `backplane.errors.Reason`.
        message: why it failed.
        ended: of a job that ended well, last.
    """

    done: int = 0
    checked: int = 0
    listing: HubListing | None = None
    config: str = ""
    reason: str = ""
    message: str = ""
    ended: bool = False


def main() -> int:
    """Does one job. Returns the exit code; failures are told on standard output."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=HubJob)
    try:
        if job.folder is None:
            listing = list_files(job)
            config = read_config(job, listing) if job.wants_config else ""
            _tell(HubProgress(listing=listing, config=config))
        else:
            bring(job, pathlib.Path(job.folder), _tell)
            _tell(HubProgress(ended=True))
    except FleetError as error:
        _tell(HubProgress(reason=error.reason.value, message=error.message))
    except Exception as error:  # noqa: BLE001 - the library raises what its HTTP client raises
        told = failure(job, error)
        _tell(HubProgress(reason=told.reason.value, message=told.message))
    return 0


def list_files(job: HubJob) -> HubListing:
    """The repository at the commit that the revision means now."""
    import huggingface_hub

    api = huggingface_hub.HfApi(endpoint=job.endpoint or None)
    found = api.model_info(job.repository, revision=job.revision, files_metadata=True)
    files = tuple(
        HubFile(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else "")
        for one in found.siblings or ()
    )
    return HubListing(found.sha or job.revision, files)


def read_config(job: HubJob, listing: HubListing) -> str:
    """The text of `config.json` at the listing's commit; empty where there is none of use."""
    file = next((one for one in listing.files if one.path == _CONFIG), None)
    if file is None or file.size > _MOST_CONFIG_BYTES:
        return ""
    with tempfile.TemporaryDirectory(prefix="cortex-hub-") as folder:
        part = pathlib.Path(folder) / _CONFIG
        _bring_http(msgspec.structs.replace(job, revision=listing.commit), file, part)
        return part.read_text(encoding="utf-8", errors="replace")


def bring(job: HubJob, folder: pathlib.Path, tell: Callable[[HubProgress], None]) -> None:
    """Brings the files, each under its own name once it is whole and its digest is right.

    Raises:
        FleetError: MODEL_FILE_BAD, a file is not what the hub says it is.
    """
    checked = [0]  # counted by several threads; only ever shown

    def note(count: int) -> None:
        checked[0] += count

    def one(file: HubFile) -> None:
        path = folder / file.path
        if path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(folder, file)
        way = _bring_http if file.size <= job.http_limit_bytes else _bring_large
        had = part.is_file()
        way(job, file, part)
        try:
            check_file(file, part, note)
        except FleetError:
            if not had:
                raise
            # What an earlier download left was bad; from the start it may come well.
            way(job, file, part)
            check_file(file, part, note)
        part.replace(path)

    with concurrent.futures.ThreadPoolExecutor(_AT_A_TIME) as pool:
        running = {pool.submit(one, file) for file in job.files}
        try:
            told = HubProgress()
            while running:
                ended, running = concurrent.futures.wait(
                    running, _GLANCE_SECONDS, concurrent.futures.FIRST_EXCEPTION
                )
                now = HubProgress(
                    done=sum(_size(folder, file) for file in job.files), checked=checked[0]
                )
                if now != told:
                    tell(now)
                    told = now
                for each in ended:
                    each.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def failure(job: HubJob, error: Exception) -> FleetError:
    """The error of the fleet for an exception of huggingface_hub."""
    words = _PAGE.split(" ".join(str(error).split()))[0].strip()[:300]
    status = getattr(getattr(error, "response", None), "status_code", 0)
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return FleetError(Reason.NO_ROOM, "The disk of the model store is full.")
    if "GatedRepoError" in names:
        told = f"{job.repository} is gated: ask for access at the hub, and set HF_TOKEN here."
        return FleetError(Reason.SOURCE_UNAVAILABLE, told)
    if names & _GONE:
        told = f"The hub has no {job.repository} at {job.revision} (or HF_TOKEN may not see it)."
        return FleetError(Reason.MODEL_UNKNOWN, told)
    if status == _TOO_MANY:
        told = f"The hub limits how often it is asked, and did not give {job.repository} now"
        told += f"{_when(error)}; with HF_TOKEN set here it allows more."
        return FleetError(Reason.SOURCE_UNAVAILABLE, told)
    if status in _REFUSED:
        told = f"The hub refuses {job.repository} to the token that is here (HF_TOKEN): {words}"
        return FleetError(Reason.SOURCE_UNAVAILABLE, told)
    return FleetError(Reason.SOURCE_UNAVAILABLE, f"The hub did not give {job.repository}: {words}")


def _when(error: Exception) -> str:
    """From when on it may be asked again, where it says so in seconds."""
    headers: Any = getattr(getattr(error, "response", None), "headers", {})
    reset = _RESET.search(headers.get("RateLimit") or "")
    seconds = headers.get("Retry-After") or (reset["seconds"] if reset else "")
    return f": try again in {seconds} s" if str(seconds).isdecimal() else ""


def _bring_http(job: HubJob, file: HubFile, part: pathlib.Path) -> None:
    """Goes on where an earlier download ended, as long as every try brings something."""
    part.touch()
    if part.stat().st_size > file.size:
        os.truncate(part, 0)
    while (here := part.stat().st_size) < file.size:
        try:
            _get(job, file, part, here)
        except Exception:
            # Newer libraries resume a cut connection themselves, older ones give up at once.
            if part.stat().st_size <= here:
                raise
        if part.stat().st_size <= here:
            raise FleetError(Reason.SOURCE_UNAVAILABLE, f"The hub sends no more of {file.path}.")


def _get(job: HubJob, file: HubFile, part: pathlib.Path, here: int) -> None:
    import huggingface_hub
    from huggingface_hub import file_download
    from huggingface_hub import utils as module

    utils: Any = module  # its typing hides what its manual documents
    url = huggingface_hub.hf_hub_url(
        job.repository, file.path, revision=job.revision, endpoint=job.endpoint or None
    )
    with part.open("ab") as out:
        file_download.http_get(
            url,
            out,
            resume_size=here,
            headers=utils.build_hf_headers(),
            expected_size=file.size,
        )


def _bring_large(job: HubJob, file: HubFile, part: pathlib.Path) -> None:
    """The library's whole way, which knows the hub's protocol for large files."""
    import huggingface_hub

    aside = part.with_suffix(".large")
    path = huggingface_hub.hf_hub_download(
        job.repository,
        file.path,
        revision=job.revision,
        endpoint=job.endpoint or None,
        local_dir=aside,
    )
    pathlib.Path(path).replace(part)


def part_of(folder: pathlib.Path, file: HubFile) -> pathlib.Path:
    """Where the bytes of a file lie that is not whole yet."""
    return folder / f"{file.path}.part"


def _size(folder: pathlib.Path, file: HubFile) -> int:
    for path in (folder / file.path, part_of(folder, file)):
        size = file_bytes(path)
        if size is not None:
            return size
    return 0


def _tell(told: HubProgress) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    # Downloads that nobody wants any more still run in threads, which an ordinary end waits for.
    os._exit(main())
