"""What a loaded GGUF file says about itself, typed."""

from __future__ import annotations

import ctypes

from services.neuron.engine_api.task import SamplingParams
from services.neuron.engines.llamacpp.library.library import Library

_NEUTRAL = SamplingParams()


class Metadata:
    """Reads the key-value part of a loaded model."""

    def __init__(self, library: Library, model: int) -> None:
        self._library = library
        self._model = model
        self.architecture = self.text("general.architecture") or "unknown"

    def text(self, key: str) -> str | None:
        """A value as llama.cpp writes it, or None where the key is missing."""
        room = 256
        while True:
            buffer = ctypes.create_string_buffer(room)
            count: int = self._library.model_meta_val_str(self._model, key.encode(), buffer, room)
            if count < 0:
                return None
            if count < room:
                return buffer.value.decode("utf-8", "replace")
            room = count + 1

    def number(self, key: str) -> float | None:
        """A numeric value, or None where it is missing or no number."""
        text = self.text(key)
        try:
            return None if text is None else float(text)
        except ValueError:
            return None

    def of_architecture(self, key: str) -> int:
        """A whole number under the architecture's name (`llama.block_count`); 0 where missing."""
        return int(self.number(f"{self.architecture}.{key}") or 0)

    @property
    def chat_template(self) -> str | None:
        """Jinja source."""
        return self._template(None)

    @property
    def tool_template(self) -> str | None:
        """Jinja source of the template for chats with tools; None where the file has none."""
        return self._template(b"tool_use")

    def _template(self, name: bytes | None) -> str | None:
        raw: bytes | None = self._library.model_chat_template(self._model, name)
        text = "" if raw is None else raw.decode("utf-8", "replace")
        return text if text.strip() else None  # an empty one would say nothing of a chat

    @property
    def description(self) -> str:
        """Family, size and quantisation: `llama 135M Q4_1`."""
        buffer = ctypes.create_string_buffer(256)
        self._library.model_desc(self._model, buffer, 256)
        return buffer.value.decode("utf-8", "replace")

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens."""
        return int(self._library.vocab_n_tokens(self._library.model_get_vocab(self._model)))

    @property
    def is_embedding_model(self) -> bool:
        """An encoder: it pools its input and cannot generate."""
        return self.text(f"{self.architecture}.attention.causal") == "false"

    @property
    def pooling(self) -> int:
        """How vectors of tokens become one of the text (`enum llama_pooling_type`); 0: not at all.

        0 too where the file does not say.
        """
        return self.of_architecture("pooling_type")

    @property
    def layers(self) -> int:
        """Number of layers, the output counted as one."""
        return self.of_architecture("block_count") + 1

    @property
    def values_per_cached_token(self) -> int:
        """Keys and values of all layers, in elements, from the head counts."""
        heads = max(1, self.of_architecture("attention.head_count"))
        head_size = self.of_architecture("embedding_length") // heads
        key = self.of_architecture("attention.key_length") or head_size
        value = self.of_architecture("attention.value_length") or head_size
        kv_heads = self.of_architecture("attention.head_count_kv") or heads
        return self.of_architecture("block_count") * kv_heads * (key + value)

    @property
    def default_sampling(self) -> SamplingParams | None:
        """The author's advice (`general.sampling.*`), or None where the file has none."""
        known = {
            "temperature": self.number("general.sampling.temp"),
            "top_k": self.number("general.sampling.top_k"),
            "top_p": self.number("general.sampling.top_p"),
            "min_p": self.number("general.sampling.min_p"),
            "repetition_penalty": self.number("general.sampling.penalty_repeat"),
        }
        if all(value is None for value in known.values()):
            return None

        def settled(name: str, neutral: float) -> float:
            value = known[name]
            return neutral if value is None else value

        return SamplingParams(
            temperature=settled("temperature", _NEUTRAL.temperature),
            top_k=int(settled("top_k", _NEUTRAL.top_k)),
            top_p=settled("top_p", _NEUTRAL.top_p),
            min_p=settled("min_p", _NEUTRAL.min_p),
            repetition_penalty=settled("repetition_penalty", _NEUTRAL.repetition_penalty),
        )
