"""Turns a load plan into a loaded model."""

from __future__ import annotations

from collections.abc import Generator as Steps
from typing import Final

from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.model import LoadFailed, LoadPlan, LoadStep, ModelInfo
from services.neuron.engines.common.admission import AdmissionQueue
from services.neuron.engines.common.constraint import ConstraintCompiler
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.generator import Generator
from services.neuron.engines.llamacpp.embedder import Embedder
from services.neuron.engines.llamacpp.library.library import PINNED_VERSION, Library
from services.neuron.engines.llamacpp.library.metadata import Metadata
from services.neuron.engines.llamacpp.model import loading
from services.neuron.engines.llamacpp.model.vocabulary import Vocabulary

DEVICE_ID: Final = "cpu"


class LlamaCppEngine:
    """Implements `Engine`."""

    def __init__(self, library: Library) -> None:
        self._library = library

    @property
    def name(self) -> str:
        """`llamacpp`."""
        return "llamacpp"

    @property
    def facts(self) -> dict[str, str]:
        """The library's build and what it uses of the CPU."""
        raw: bytes = self._library.print_system_info()
        return {"xllamacpp": PINNED_VERSION, "cpu": raw.decode("utf-8", "replace").strip(" |")}

    def load(self, plan: LoadPlan) -> Steps[LoadStep, None, LoadedModel]:
        """Loads a GGUF file; see `Engine.load`.

        Raises:
            LoadFailed: with llama.cpp's own words.
        """
        model = yield from loading.load(
            self._library, plan, lambda loaded: self._assemble(plan, loaded)
        )
        return model

    def _assemble(self, plan: LoadPlan, loaded: loading.Loaded) -> LoadedModel:
        context = Context(self._library, model=loaded.model, context=loaded.context)
        try:
            vocabulary = Vocabulary(self._library, loaded.model, adds_special=plan.embedding)
            return self._model(plan, loaded, context, vocabulary)
        except BaseException:
            context.close()
            raise

    def _model(
        self, plan: LoadPlan, loaded: loading.Loaded, context: Context, vocabulary: Vocabulary
    ) -> LoadedModel:
        if vocabulary.is_missing:
            raise LoadFailed("MODEL_FILE_BAD", "The file holds no tokenizer.")
        info = self._info(plan, loaded, vocabulary)
        if plan.embedding:
            return Embedder(context=context, vocabulary=vocabulary, info=info)
        return Generator(
            library=self._library,
            context=context,
            vocabulary=vocabulary,
            info=info,
            compiler=ConstraintCompiler(
                pieces=vocabulary.pieces,
                special_token_ids=vocabulary.control_tokens.values(),
                eos_token_id=max(vocabulary.eos_id, 0),
                tokenize=vocabulary.tokenize_plain,
            ),
            queue=AdmissionQueue(
                max_queued=plan.max_queued, timeout_seconds=plan.queue_timeout_seconds
            ),
            prefill_tokens=loading.PREFILL_TOKENS,
        )

    def _info(self, plan: LoadPlan, loaded: loading.Loaded, vocabulary: Vocabulary) -> ModelInfo:
        metadata = Metadata(self._library, loaded.model)
        width: int = self._library.model_n_embd_out(loaded.model) if plan.embedding else 0
        return ModelInfo(
            engine=self.name,
            architecture=metadata.architecture,
            max_context_tokens=loaded.shape.context_tokens,
            max_sequences=loaded.shape.sequences,
            max_queued=plan.max_queued,
            cache_tokens=0 if plan.embedding else loaded.shape.total_tokens,
            vocabulary_size=vocabulary.size,
            chat_template=metadata.chat_template,
            control_tokens=vocabulary.control_tokens,
            bos_token=vocabulary.text(vocabulary.bos_id),
            eos_token=vocabulary.text(vocabulary.eos_id),
            eos_token_ids=tuple(sorted(vocabulary.end_ids)),
            default_sampling=metadata.default_sampling,
            memory_bytes={DEVICE_ID: loaded.held_bytes},
            embedding_size=width,
            facts={"model": metadata.description, "threads": str(loaded.threads)},
        )
