"""Where the library describes an architecture otherwise than its models were trained. Pure.

Source: exllamav2 0.3.2 architecture.py; the classes of the same names in transformers.
"""

from __future__ import annotations

from typing import Any, Final

_RMS_HEAD_NORMS: Final = frozenset({"Qwen3ForCausalLM", "Qwen3MoeForCausalLM"})
"""Their queries and keys keep their mean; the library would take it away. Gemma 3 is right in it,
and Cohere's own norms do take it away."""
_YI: Final = "YiForCausalLM"
_LLAMA_NORMS: Final = {"norm_1": ".input_layernorm", "norm_2": ".post_attention_layernorm"}


def correct(config: Any, architecture: str) -> None:
    """Corrects the library's configuration of a model, before the model is made of it.

    Args:
        config: read by the library.
        architecture: the class name in `config.json`.
    """
    parts = config.arch.lm
    if architecture in _RMS_HEAD_NORMS:
        parts.headnorm = "rmsnorm"
    # Its check of the tensors takes either name of the norms, its modules read the older one alone.
    if architecture == _YI and f"model.layers.0{_LLAMA_NORMS['norm_1']}.weight" in (
        config.tensor_file_map
    ):
        parts.keys.update(_LLAMA_NORMS)
