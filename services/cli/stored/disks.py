"""What lies on the disks of a fleet, and how people name a source."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterable
from typing import Final

from rich.table import Table

from cortex.v1 import model_pb2 as model
from cortex.v1 import operator_service_pb2 as op
from services.backplane import protobuf_time
from services.backplane.rpc.protobuf_json import json_fields
from services.cli.tables import gib, state_name, table_of
from services.cli.terminal import out, show

_HUB: Final = re.compile(
    r"(?:hf:|(?=\w))(?P<repository>[^/@:#\s]+/[^/@:#\s]+)(?:@(?P<revision>[^/:#\s]+))?"
    r"(?P<inside>/[^:#\s]+)?(?::(?P<what>[^#\s]+))?(?P<digest>#sha256=[0-9a-fA-F]{64})?"
)
_SCHEME: Final = "hf:"
_SCHEMES: Final = ("package:", "path:")
# As a browser shows a repository, or one of its files.
_ADDRESS: Final = re.compile(
    r"(?:https?://)?[\w.-]+\.[a-z]+/(?P<repository>[\w.-]+/[\w.-]+)"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[\w.-]+)(?P<file>/[\w./-]+)?)?/?(?:\?.*)?"
    r"(?P<quant>:[\w.-]+)?"
)
_NOTHING: Final = (
    "No model lies on a disk of the fleet. `cortex pull hf:OWNER/NAME:Q4_K_M` fetches one from a"
    " hub; a GGUF file that is copied into a folder of a neuron's models_dirs is offered within"
    " seconds. (What comes from packages is not listed.)"
)


@dataclasses.dataclass(frozen=True, slots=True)
class StoredRow:
    """The files of one model on one disk.

    Attributes:
        stored: by the longest of their names.
        use: the state of an instance of these files; empty where there is none.
        aliases: their other names.
    """

    neuron: str
    stored: model.StoredModel
    use: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names of these files."""
        return self.stored.model, *self.aliases


def pull_source(text: str) -> tuple[str, str]:
    """The source and the quantisation that a person means.

    `hf:owner/name`, `…@revision`, `…:Q4_K_M` (a part of the file's name), `…:name.gguf` or
    `…/folder/name.gguf` (a file, or a pattern). Without a revision it is the branch `main`; `hf:`
    may be left out.

    Raises:
        ValueError: it is no source; the message says what would be.
    """
    if text.startswith(_SCHEMES):
        return text, ""
    address = None if text.startswith("hf:") else _ADDRESS.fullmatch(text)
    found = _HUB.fullmatch(text)
    if address is not None or found is None:
        raise ValueError(f"{text!r} is no source: {_meant(address)}")
    what, inside = found["what"] or "", found["inside"] or ""
    is_file = what.endswith((".gguf", ".safetensors")) or "*" in what or "/" in what
    if is_file:
        what, inside = "", f"/{what}"
    source = f"hf:{found['repository']}@{found['revision'] or 'main'}{inside}"
    return f"{source}{found['digest'] or ''}", what


def _meant(address: re.Match[str] | None) -> str:
    if address is None:
        return (
            "hf:OWNER/NAME, hf:OWNER/NAME:Q4_K_M, hf:OWNER/NAME:FILE.gguf, or one as in models.toml"
        )
    revision = f"@{address['revision']}" if address["revision"] else ""
    behind = (address["file"] or "") + (address["quant"] or "")
    return f"of the hub that the neurons use it is hf:{address['repository']}{revision}{behind}"


def stored_on(fleet: op.GetFleetResponse) -> list[StoredRow]:
    """All models on all disks, by model and neuron; files with several names once."""
    rows: list[StoredRow] = []
    for neuron in fleet.neurons:
        if neuron.lost:
            continue
        files: dict[str, list[model.StoredModel]] = {}
        for stored in neuron.report.stored_models:
            files.setdefault(stored.source or stored.model, []).append(stored)
        for named in files.values():
            own, *others = sorted(named, key=lambda one: (-len(one.model), one.model))
            use = _use(neuron.report.instances, own)
            aliases = tuple(other.model for other in others)
            rows.append(StoredRow(neuron.identity.name, own, use, aliases))
    return sorted(rows, key=lambda row: (row.stored.model, row.neuron))


def unfinished_on(fleet: op.GetFleetResponse) -> list[tuple[str, model.UnfinishedDownload]]:
    """What downloads that ended early have left on each neuron's disk."""
    return [
        (neuron.identity.name, one)
        for neuron in fleet.neurons
        if not neuron.lost
        for one in neuron.report.unfinished_downloads
    ]


def origin_meant(text: str) -> str:
    """The repository that a person names: `hf:OWNER/NAME@REVISION`; a model's name as it is.

    Raises:
        ValueError: it begins like a source and is none.
    """
    if not text.startswith(_SCHEME):
        return text
    source, _ = pull_source(text)
    repository, _, rest = source.partition("@")
    return f"{repository}@{re.split('[/#]', rest, maxsplit=1)[0]}"


def unfinished_words(neuron: str, one: model.UnfinishedDownload) -> str:
    """One of them in a sentence."""
    at = dt.datetime.fromtimestamp(protobuf_time.nearest(one.modified_at)).astimezone()
    return (
        f"{neuron}: not finished: {one.origin}, {gib(one.bytes)} since {at:%Y-%m-%d %H:%M};"
        f" the same pull goes on with it, `cortex rm {one.origin}` removes it."
    )


def disks_table(rows: list[StoredRow]) -> Table:
    """Each model on each disk: what it takes, whether it is in use, where it comes from."""
    table = table_of("model", "neuron", "size", "packed", "format", "in use", "last used", "from")
    for row in rows:
        stored = row.stored
        table.add_row(
            ", ".join(row.names),
            row.neuron,
            gib(stored.bytes),
            " ".join(filter(None, (stored.parameter_size, stored.quantization))),
            stored.format,
            row.use,
            _when(stored),
            stored.origin or stored.source,
        )
    return table


def _use(instances: Iterable[model.Instance], stored: model.StoredModel) -> str:
    for instance in instances:
        if instance.weights.source == stored.source:
            return state_name(instance.state).lower()
    return ""


def _when(stored: model.StoredModel) -> str:
    if not stored.HasField("last_used_at"):
        return "never"
    at = dt.datetime.fromtimestamp(protobuf_time.nearest(stored.last_used_at)).astimezone()
    return f"{at:%Y-%m-%d %H:%M}"


def show_disks(fleet: op.GetFleetResponse, *, as_json: bool) -> None:
    """Prints what lies on each neuron's disk; as JSON, a line for each model and each left-over."""
    rows = stored_on(fleet)
    if not as_json:
        if rows:
            show(disks_table(rows))
        elif fleet.neurons:
            out.print(_NOTHING)
        else:
            out.print("No neuron is attached: see `cortex status`.")
        for neuron in fleet.neurons:
            for problem in neuron.report.problems:
                out.print(f"{neuron.identity.name}: not offered: {problem}")
        for name, one in unfinished_on(fleet):
            out.print(unfinished_words(name, one), soft_wrap=True, highlight=False)
        return
    for row in rows:
        shown = {"neuron": row.neuron, "use": row.use, "aliases": row.aliases}
        fields = {**shown, **json_fields(row.stored)}
        out.print(json.dumps(fields), soft_wrap=True)
    for name, one in unfinished_on(fleet):
        out.print(json.dumps({"neuron": name, "unfinished": json_fields(one)}), soft_wrap=True)
