"""A model to load, how far its load has come, and what it says about itself."""

from __future__ import annotations

from services.neuron.engine_api.task import SamplingParams, Value


class Offload(Value, frozen=True):
    """How a model is divided between GPUs and the host; what an engine does not know it refuses.

    Attributes:
        device_ids: GPUs as the engine's library calls them; empty loads on the CPU alone.
        gpu_layers: most layers on the GPUs, the output counted as one; None is all.
        cpu_experts: of so many first layers the experts of a mixture stay with the CPU.
        by_rows: each layer is cut over all GPUs, instead of whole layers being dealt out.
        flash_attention: None is the library's own choice.
    """

    device_ids: tuple[str, ...] = ()
    gpu_layers: int | None = None
    cpu_experts: int = 0
    by_rows: bool = False
    flash_attention: bool | None = None


class KvTier(Value, frozen=True):
    """A folder where caches are saved, and the most bytes that all files in it may have."""

    folder: str
    most_bytes: int


class KvStorePlan(Value, frozen=True):
    """Where the cache of a model is saved when it goes.

    Attributes:
        tiers: the fastest first.
        fingerprint: of the model's files; a cache of others is never restored.
        keeps_named: also what callers with a name have sent, not only anonymous ones.
        key_file: holds the key that it is encrypted with; empty: it is not.
    """

    tiers: tuple[KvTier, ...]
    fingerprint: str
    keeps_named: bool = False
    key_file: str = ""


class Confined(Value, frozen=True):
    """Files named by somebody who may not be allowed to read all that the engine can.

    Attributes:
        paths: files and folders of the load, with no link in them when they were looked at.
        folders: below which they have to lie when they have been opened too.
    """

    paths: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


class LoadPlan(Value, frozen=True):
    """What to load, with every choice made by the daemon.

    Attributes:
        instance_id: the instance's name, unique for the life of the fleet.
        engine: which engine.
        path: the weights: a file (GGUF) or a folder (safetensors) on this machine.
        max_context_tokens: longest prompt plus completion; None is the model's own.
        max_sequences: most sequences decoded together; None is the engine's default.
        max_queued: most tasks that wait for a place.
        queue_timeout_seconds: longest wait for a place.
        cache_tokens: cache for all sequences; None is what all sequences need at most.
        cache_format: `fp16`, `q8`, `q6`, `q4`.
        cache_bytes_per_token: of keys and values in fp16, as the files say it; 0: not known.
        memory_bytes: most that weights, cache and buffers may take; None is all that is free.
        embedding: pooled vectors instead of generation.
        threads: CPU threads; None is the engine's default.
        offload: which GPUs take how much, where the engine leaves that open.
        draft_path: a small model that drafts; None for none.
        ngram_draft: draft by n-grams.
        adapter_paths: LoRA adapters.
        kv_store: where its cache is saved when it goes; None: nowhere.
        model: the model's own name, under which its time is charged.
        principal: whose request caused the load.
        confined: which of its files have to lie where.
    """

    instance_id: str
    engine: str
    path: str
    max_context_tokens: int | None = None
    max_sequences: int | None = None
    max_queued: int = 64
    queue_timeout_seconds: float = 120.0
    cache_tokens: int | None = None
    cache_format: str = "fp16"
    cache_bytes_per_token: int = 0
    memory_bytes: int | None = None
    embedding: bool = False
    threads: int | None = None
    offload: Offload = Offload()
    draft_path: str | None = None
    ngram_draft: bool = False
    adapter_paths: tuple[str, ...] = ()
    kv_store: KvStorePlan | None = None
    model: str = ""
    principal: str = ""
    confined: Confined = Confined()


class LoadStep(Value, frozen=True):
    """How far a load has come: bytes read and to be read; a total of 0 is not known."""

    bytes_done: int = 0
    bytes_total: int = 0
    modules_done: int = 0
    modules_total: int = 0


class ModelInfo(Value, frozen=True):
    """What a loaded model says about itself.

    Attributes:
        engine: which engine runs it.
        architecture: `llama`, `qwen2`, …
        chat_template: Jinja source from the model, None where it has none.
        tool_template: Jinja source that the model has for chats with tools, where it is another.
        control_tokens: every control token's text, as the vocabulary writes it, to its id.
        bos_token, eos_token: their texts, empty where the model has none.
        eos_token_ids: all tokens that end a turn.
        max_context_tokens: longest prompt plus completion.
        max_sequences, max_queued: as loaded.
        cache_tokens: in all.
        vocabulary_size: number of tokens.
        longest_token: bytes of the longest token, where a text's tokens have all of its bytes; 0
            where they may not.
        default_sampling: from the model's generation_config, where it has one.
        memory_bytes: device id to bytes held, measured.
        supports_images: it has a vision tower.
        embedding_size: length of its vectors; 0 for a generator.
        facts: free-form: attention backend, quantisation, threads.
    """

    engine: str
    architecture: str
    max_context_tokens: int
    max_sequences: int
    max_queued: int
    cache_tokens: int
    vocabulary_size: int
    chat_template: str | None = None
    tool_template: str | None = None
    control_tokens: dict[str, int] = {}
    bos_token: str = ""
    eos_token: str = ""
    eos_token_ids: tuple[int, ...] = ()
    default_sampling: SamplingParams | None = None
    memory_bytes: dict[str, int] = {}
    supports_images: bool = False
    embedding_size: int = 0
    longest_token: int = 0
    facts: dict[str, str] = {}


class ModelStats(Value, frozen=True):
    """How busy a loaded model is."""

    active: int = 0
    queued: int = 0
    cache_tokens_used: int = 0
    steps: int = 0


class LoadFailed(Exception):  # noqa: N818 - the field's word for it
    """A load ended badly.

    Attributes:
        reason: name of a backplane.errors.Reason: MODEL_FILE_BAD, OUT_OF_MEMORY or LOAD_FAILED.
        message: one sentence with the engine's own words.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class EnginePoisoned(Exception):  # noqa: N818 - the field's word for it
    """This process can no longer use the device or the library; only a new process can."""
