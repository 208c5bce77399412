"""Puts a loaded model's parts together and lets it prove that it runs."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Final

from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.events import Failed
from services.neuron.engine_api.fair_shares import NOBODY, FairShares
from services.neuron.engine_api.model import LoadFailed, LoadPlan, ModelInfo
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task
from services.neuron.engines.common.constraint import ConstraintCompiler
from services.neuron.engines.common.kv_store.hibernation import Kept, kept_by
from services.neuron.engines.common.task_queue import TaskQueue
from services.neuron.engines.exllamav2.batch.intake import BatchLimits
from services.neuron.engines.exllamav2.batch.loop import Loop
from services.neuron.engines.exllamav2.batch.stream_factory import StreamFactory
from services.neuron.engines.exllamav2.embedder import Embedder, pooling
from services.neuron.engines.exllamav2.files.configuration import ModelFolder
from services.neuron.engines.exllamav2.model.generators import CHUNK_TOKENS, GeneratorParts
from services.neuron.engines.exllamav2.paging.copies import PageCopies
from services.neuron.engines.exllamav2.paging.hibernation import PageHibernation
from services.neuron.engines.exllamav2.text.tokeniser import JsonTokeniser
from services.neuron.weights.fingerprint import fingerprint

_TRIAL: Final = -1
"""Task id of the trial; the daemon's begin at zero."""
_TRIAL_PROMPTS: Final = (CHUNK_TOKENS + 1, 3)
"""Prompt tokens: a whole chunk, so that what the longest pass takes is taken now, and few."""


def assemble(
    parts: GeneratorParts,
    plan: LoadPlan,
    folder: ModelFolder,
    held_before: Mapping[str, int],
    *,
    shares: FairShares,
) -> LoadedModel:
    """Makes the loaded model.

    Args:
        parts: what was loaded.
        plan: what was asked for.
        folder: the model's own files.
        held_before: device bytes by device before the load.
        shares: what principals have had of the devices.

    Raises:
        LoadFailed: the tokeniser cannot be read, or the trial failed.
    """
    tokeniser = JsonTokeniser(
        folder.path / "tokenizer.json",
        size=parts.model.config.vocab_size,
        bos_id=parts.tokenizer.bos_token_id,
    )
    info = _info(parts, plan, folder, tokeniser, held_before)
    if plan.embedding:
        return Embedder(parts=parts, tokeniser=tokeniser, info=info, mode=pooling(folder.path))
    loop = Loop(
        parts=parts,
        tokeniser=tokeniser,
        streams=_stream_factory(parts, tokeniser, info),
        info=info,
        queue=TaskQueue.of_plan(plan, places=info.max_sequences, shares=shares),
        hibernation=_hibernation(parts, plan, info),
    )
    for prompt_tokens in _TRIAL_PROMPTS:
        _try(loop, min(prompt_tokens, info.max_context_tokens - 2))
    return loop


def _hibernation(parts: GeneratorParts, plan: LoadPlan, info: ModelInfo) -> PageHibernation:
    caches = [cache for cache in (parts.cache, parts.draft_cache) if cache is not None]
    copies = PageCopies(caches)
    if parts.rank_bytes:  # the other ranks have their heads of it
        return PageHibernation(copies, Kept())
    made_by = {
        **info.facts,
        "architecture": info.architecture,
        "token": str(copies.token_bytes),
        "length": str(parts.model.config.max_seq_len),
        "adapters": str([files_digest(pathlib.Path(path)) for path in plan.adapter_paths]),
        "draft": "" if plan.draft_path is None else files_digest(pathlib.Path(plan.draft_path)),
    }
    identity = f"{info.engine} {sorted(made_by.items())}"
    return PageHibernation(copies, kept_by(plan.kv_store, identity=identity))


def files_digest(folder: pathlib.Path) -> str:
    """Digest of the files of a draft or an adapter, which the model's fingerprint leaves out."""
    return fingerprint(sorted(path for path in folder.iterdir() if path.is_file()))


def _stream_factory(
    parts: GeneratorParts, tokeniser: JsonTokeniser, info: ModelInfo
) -> StreamFactory:
    vocabulary = tokeniser.vocabulary
    return StreamFactory(
        parts=parts,
        vocabulary=vocabulary,
        compiler=ConstraintCompiler(
            pieces=vocabulary.pieces,
            special_token_ids=vocabulary.special,
            eos_token_id=next(iter(info.eos_token_ids), 0),
            tokenize=tokeniser.tokenize_plain,
        ),
        info=info,
        limits=BatchLimits(
            context_tokens=info.max_context_tokens,
            cache_tokens=parts.shape.cache_tokens - parts.shape.draft_tokens,
            echo_tokens=parts.shape.input_tokens,
        ),
    )


def _info(
    parts: GeneratorParts,
    plan: LoadPlan,
    folder: ModelFolder,
    tokeniser: JsonTokeniser,
    held_before: Mapping[str, int],
) -> ModelInfo:
    config, shape = parts.model.config, parts.shape
    eos_id: int | None = parts.tokenizer.eos_token_id
    known = folder.eos_token_ids or (() if eos_id is None else (eos_id,))
    held = parts.library.held_bytes()
    context = min(shape.context_tokens, int(config.max_seq_len) - shape.draft_tokens)
    return ModelInfo(
        engine="exllamav2",
        architecture=str(folder.text.get("model_type", folder.architecture)),
        max_context_tokens=min(context, shape.input_tokens) if plan.embedding else context,
        max_sequences=shape.sequences,
        max_queued=plan.max_queued,
        cache_tokens=0 if plan.embedding else shape.cache_tokens,
        vocabulary_size=int(config.vocab_size),
        chat_template=folder.chat_template,
        tool_template=folder.tool_template,
        control_tokens=dict(tokeniser.vocabulary.control),
        bos_token=tokeniser.text(tokeniser.bos_id),
        eos_token=tokeniser.text(eos_id),
        eos_token_ids=known,
        default_sampling=folder.default_sampling,
        memory_bytes=dict(parts.rank_bytes)
        or {i: size - held_before.get(i, 0) for i, size in held.items()},
        supports_images=parts.tower is not None,
        embedding_size=int(config.hidden_size) if plan.embedding else 0,
        longest_token=tokeniser.longest_token,
        facts={
            **parts.library.facts,
            "quantisation": parts.quantisation or "none",
            "cache": shape.cache_format,
            "parallel": _parallel(parts),
            "speculation": _speculation(parts),
            "saved caches": _saving(parts, plan),
            "adapters": ", ".join(pathlib.Path(path).name for path in plan.adapter_paths) or "none",
        },
    )


def _parallel(parts: GeneratorParts) -> str:
    if parts.rank_bytes:
        return f"tensor, {len(parts.rank_bytes)} ranks"
    return "layers" if parts.library.torch.cuda.device_count() > 1 else "none"


def _saving(parts: GeneratorParts, plan: LoadPlan) -> str:
    if parts.rank_bytes:
        return "none: the cache is divided among ranks"
    return "none" if plan.kv_store is None else "yes"


def _speculation(parts: GeneratorParts) -> str:
    if not parts.shape.draft_tokens:
        return "none"
    return "n-gram" if parts.draft_model is None else "draft model"


def _try(loop: Loop, prompt_tokens: int) -> None:
    """Generates two tokens: the kernels are compiled, and a model that cannot run says so now.

    Raises:
        LoadFailed: it did not work.
    """
    task = Task(
        _TRIAL,
        "",
        Prompt(),
        SamplingParams(temperature=0.0),
        StopParams(max_tokens=2, ignore_eos=True),
        principal=NOBODY,
    )
    loop.submit(task, [0] * max(1, prompt_tokens))
    while loop.has_work:
        for event in loop.step():
            if isinstance(event, Failed):
                raise LoadFailed("LOAD_FAILED", f"The first generation failed: {event.message}")
