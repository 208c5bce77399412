"""Which files of a repository on a Hugging Face hub make the model that was asked for. Pure."""

from __future__ import annotations

import fnmatch
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from services.backplane.errors import FleetError, Reason
from services.neuron.weights.inspect import is_model_file

_FORM: Final = re.compile(
    # of ASCII, as on the hub: other letters may be the same as these in lower case
    r"(?a:(?P<owner>[A-Za-z0-9][\w.-]*)/(?P<name>[A-Za-z0-9][\w.-]*))"
    r"@(?P<revision>[A-Za-z0-9][\w.-]*)(?:/(?P<glob>.+))?"
)
_SHARD: Final = re.compile(r"-(?P<number>\d{5})-of-\d{5}(?=\.gguf$)")
_COMMIT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# What belongs to a model in safetensors besides its tensors.
_COMPANIONS: Final = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "*/config.json")
_CONFIGS: Final = frozenset({"config.json", "adapter_config.json"})


class HubFile(msgspec.Struct, frozen=True):
    """One file of a repository.

    Attributes:
        path: inside the repository.
        size: in bytes.
        sha256: hex; empty for small files, of which the hub tells none.
    """

    path: str
    size: int
    sha256: str = ""


class HubListing(msgspec.Struct, frozen=True):
    """All files of a repository at one commit, as a hub or a neighbour has told.

    Attributes:
        commit: what the revision meant when it was looked up.
        files: in any order.
    """

    commit: str
    files: tuple[HubFile, ...]

    @property
    def is_sound(self) -> bool:
        """True if the commit is safe as a folder's name (letters, digits, `_`, `.`, `-`)."""
        return _COMMIT.fullmatch(self.commit) is not None

    def inside(self) -> list[HubFile]:
        """The files whose paths stay within the repository's folder (no `..`, not absolute)."""
        return [file for file in self.files if _stays_inside(file.path)]


class HubModel(msgspec.Struct, frozen=True):
    """`OWNER/NAME@REVISION[/GLOB]`.

    Attributes:
        owner, name: of the repository.
        revision: a branch, a tag or a commit.
        glob: files or a folder wanted; empty chooses by what is there.
    """

    owner: str
    name: str
    revision: str
    glob: str = ""

    @classmethod
    def parse(cls, location: str) -> HubModel:
        """Reads what stands behind `hf:`.

        Raises:
            FleetError: BAD_REQUEST, it is not of that form.
        """
        match = _FORM.fullmatch(location)
        if match is None:
            raise FleetError(
                Reason.BAD_REQUEST,
                f"hf:{location} is not of the form hf:OWNER/NAME@REVISION or …@REVISION/FILES.",
                field="spec.source",
            )
        return cls(match["owner"], match["name"], match["revision"], match["glob"] or "")

    @property
    def repository(self) -> str:
        """`OWNER/NAME`."""
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}"

    def choose(self, files: Sequence[HubFile], quant: str) -> list[HubFile]:
        """The files of the repository that make the model.

        With a glob, what it matches. Otherwise the GGUF file that `quant` names; without a `quant`
        the model in safetensors where there is one, else the only GGUF file.

        Args:
            files: of the repository.
            quant: a part of a GGUF file's name (`Q4_K_M`); letter case does not count.

        Raises:
            FleetError: MODEL_UNKNOWN, there is no such file; BAD_REQUEST, several would do.
        """
        safe = [file for file in files if _stays_inside(file.path)]
        if self.glob:
            matching = [file for file in safe if _matches(file.path, self.glob)]
            if not matching:
                raise self._nothing(f"no file {self.glob!r}")
            ggufs = _groups(matching)
            return self._named(ggufs, quant) if quant and len(ggufs) > 1 else matching
        ggufs = _groups(safe)
        is_folder_model = any(file.path in _CONFIGS for file in safe) and bool(_tensors(safe))
        if ggufs and (quant or not is_folder_model):
            return self._named(ggufs, quant)
        if not is_folder_model:
            raise self._nothing("neither a GGUF file nor safetensors with a config.json")
        return [*_tensors(safe), *[file for file in safe if _is_companion(file.path)]]

    def _named(self, ggufs: dict[str, list[HubFile]], quant: str) -> list[HubFile]:
        """The one model among GGUF files that a quant names; a whole word counts for more."""
        word = re.compile(rf"(?<![a-z0-9_]){re.escape(quant.lower())}(?![a-z0-9_])")
        within = [name for name in ggufs if quant.lower() in name.lower()]
        exact = [name for name in within if word.search(name.lower())]
        for names in (exact, within):
            if len(names) == 1:
                return ggufs[names[0]]
        wanted = f"{quant!r} names {len(within)}" if quant else "none is named"
        raise FleetError(
            Reason.BAD_REQUEST,
            f"{self} holds several files and {wanted}: {', '.join(sorted(ggufs))}."
            " Name one by a part of its name.",
            field="spec.quant",
        )

    def _nothing(self, what: str) -> FleetError:
        return FleetError(
            Reason.MODEL_UNKNOWN, f"{self.repository} holds {what}.", field="spec.source"
        )


def model_path(folder: pathlib.Path, chosen: Sequence[HubFile]) -> pathlib.Path:
    """What an engine is given: the file, the first part of a split one, or the folder."""
    paths = sorted(folder / file.path for file in chosen)
    if len(_groups(chosen)) == 1 or len(paths) == 1:
        return next((path for path in paths if path.suffix == ".gguf"), paths[0])
    return pathlib.Path(os.path.commonpath([path.parent for path in paths]))


def _groups(files: Sequence[HubFile]) -> dict[str, list[HubFile]]:
    """GGUF models by name; the parts of a split one together, vision projectors left out."""
    found: dict[str, list[HubFile]] = {}
    for file in files:
        if is_model_file(file.path.rpartition("/")[2]):
            # with its folder: those of several quantisations may be called alike
            found.setdefault(_SHARD.sub("", file.path), []).append(file)
    return found


def _tensors(files: Sequence[HubFile]) -> list[HubFile]:
    """The model's own tensors: some repositories hold them a second time as `consolidated*`."""
    top = [file for file in files if file.path.endswith(".safetensors") and "/" not in file.path]
    return [file for file in top if not file.path.startswith("consolidated")] or top


def _is_companion(path: str) -> bool:
    is_top = "/" not in path
    return any(fnmatch.fnmatchcase(path, one) and is_top != ("/" in one) for one in _COMPANIONS)


def _matches(path: str, glob: str) -> bool:
    glob = glob.rstrip("/")
    return (
        fnmatch.fnmatchcase(path, glob)
        or fnmatch.fnmatchcase(path, f"*/{glob}")
        or path.startswith(f"{glob}/")
    )


def _stays_inside(path: str) -> bool:
    """False for a name outside of its folder, or a hidden one, as those of the store's own are."""
    parts = pathlib.PurePosixPath(path).parts
    is_hidden = any(part.startswith(".") for part in parts)  # `..` too
    is_plain = not path.startswith("/") and path.isprintable() and "\\" not in path
    return bool(parts) and is_plain and not is_hidden
