"""Turns a load plan into a loaded model."""

from __future__ import annotations

from collections.abc import Generator

from typing_extensions import override

from services.neuron.engine_api.engine import Engine, LoadedModel
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.model import LoadFailed, LoadPlan, LoadStep, ModelInfo
from services.neuron.engines.common.constraint import ConstraintCompiler
from services.neuron.engines.common.kv_store.hibernation import kept_by
from services.neuron.engines.common.task_queue import TaskQueue
from services.neuron.engines.llamacpp.batch.checkpoints import MOST_BYTES
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.hibernation import SlotHibernation
from services.neuron.engines.llamacpp.batch.loop import Loop
from services.neuron.engines.llamacpp.batch.threads import Threads
from services.neuron.engines.llamacpp.embedder import Embedder
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.metadata import Metadata
from services.neuron.engines.llamacpp.model import loading
from services.neuron.engines.llamacpp.model.tokeniser import GgufTokeniser


class LlamaCppEngine(Engine):
    """Loads GGUF files, and folders with a BERT encoder, on the CPU and on GPUs."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._shares = FairShares()

    @property
    @override
    def shares(self) -> FairShares:
        return self._shares

    @property
    @override
    def name(self) -> str:
        return "llamacpp"

    @property
    @override
    def facts(self) -> dict[str, str]:
        """The library's build and what it uses of the CPU."""
        raw: bytes = self._library.print_system_info()
        return {
            "llama.cpp": self._library.version,
            "library": f"{self._library.found.path.name} {self._library.found.origin}",
            "cpu": raw.decode("utf-8", "replace").strip(" |"),
        }

    @override
    def load(self, plan: LoadPlan) -> Generator[LoadStep, None, LoadedModel]:
        model = yield from loading.load(
            self._library, plan, lambda loaded: self._assemble(plan, loaded)
        )
        return model

    def _assemble(self, plan: LoadPlan, loaded: loading.LoadedFile) -> LoadedModel:
        threads = Threads(self._library, context=loaded.context, most=loaded.threads)
        context = Context(
            self._library, model=loaded.model, context=loaded.context, threads=threads
        )
        try:
            tokeniser = GgufTokeniser(self._library, loaded.model, adds_special=plan.embedding)
            return self._model(plan, loaded, context, tokeniser)
        except BaseException:
            context.close()
            raise

    def _model(
        self, plan: LoadPlan, loaded: loading.LoadedFile, context: Context, tokeniser: GgufTokeniser
    ) -> LoadedModel:
        if tokeniser.is_missing:
            raise LoadFailed("MODEL_FILE_BAD", "The file holds no tokenizer.")
        if tokeniser.lacks_frame:
            told = "Its tokenizer names no token to begin or end a text with (BOS, SEP or EOS)."
            raise LoadFailed("MODEL_FILE_BAD", told)
        info = self._info(plan, loaded, tokeniser)
        if plan.embedding:
            return Embedder(context=context, tokeniser=tokeniser, info=info)
        return Loop(
            library=self._library,
            context=context,
            tokeniser=tokeniser,
            info=info,
            compiler=ConstraintCompiler(
                pieces=tokeniser.pieces,
                special_token_ids=tokeniser.control_tokens.values(),
                eos_token_id=max(tokeniser.eos_id, 0),
                tokenize=tokeniser.tokenize_plain,
            ),
            queue=TaskQueue.of_plan(plan, places=info.max_sequences, shares=self._shares),
            prefill_tokens=loading.PREFILL_TOKENS,
            checkpoint_bytes=_checkpoint_bytes(plan, loaded),
            hibernation=self._hibernation(plan, context, info),
            where=_where(plan, info),
        )

    def _hibernation(self, plan: LoadPlan, context: Context, info: ModelInfo) -> SlotHibernation:
        made_by = {**self.facts, "cache": plan.cache_format, "architecture": info.architecture}
        identity = f"{self.name} {sorted(made_by.items())}"
        return SlotHibernation(context, kept_by(plan.kv_store, identity=identity))

    def _info(
        self, plan: LoadPlan, loaded: loading.LoadedFile, tokeniser: GgufTokeniser
    ) -> ModelInfo:
        metadata = Metadata(self._library, loaded.model)
        width: int = self._library.model_n_embd_out(loaded.model) if plan.embedding else 0
        return ModelInfo(
            engine=self.name,
            architecture=metadata.architecture,
            max_context_tokens=loaded.shape.context_tokens,
            max_sequences=loaded.shape.sequences,
            max_queued=plan.max_queued,
            cache_tokens=0 if plan.embedding else loaded.shape.total_tokens,
            vocabulary_size=tokeniser.size,
            chat_template=metadata.chat_template,
            tool_template=metadata.tool_template,
            control_tokens=tokeniser.control_tokens,
            bos_token=tokeniser.text(tokeniser.bos_id),
            eos_token=tokeniser.text(tokeniser.eos_id),
            eos_token_ids=tuple(sorted(tokeniser.end_ids)),
            default_sampling=metadata.default_sampling,
            memory_bytes=dict(loaded.held_bytes),
            embedding_size=width,
            longest_token=tokeniser.longest_token,
            facts={
                "model": metadata.description,
                "threads": str(loaded.threads),
                **loaded.facts,
            },
        )


def _where(plan: LoadPlan, info: ModelInfo) -> str:
    return f"for {plan.model or plan.instance_id} on {info.facts.get('devices', 'the CPU')}"


def _checkpoint_bytes(plan: LoadPlan, loaded: loading.LoadedFile) -> int:
    """Most that states of the cache may take: within what the plan leaves beside the load."""
    if plan.memory_bytes is None:
        return MOST_BYTES
    return max(0, min(MOST_BYTES, plan.memory_bytes - sum(loaded.held_bytes.values())))
