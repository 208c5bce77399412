"""SmolLM2-135M-Instruct as a folder of fp16 safetensors, from the GGUF file of a Python package.

transformers 5 reads the GGUF but refuses to save what came from one, and its converter writes the
wrong end token into the tokeniser's configuration; both are put right here.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

TURN_END, TURN_END_ID = "<|im_end|>", 2


def convert(gguf: pathlib.Path, target: pathlib.Path) -> None:
    """Writes the folder."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target.mkdir(parents=True, exist_ok=True)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float16)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    config: dict[str, Any] = model.config.to_dict()
    config.pop("quantization_config", None)
    config.update(architectures=["LlamaForCausalLM"], eos_token_id=TURN_END_ID)
    (target / "config.json").write_text(json.dumps(config, default=str))
    (target / "generation_config.json").write_text(json.dumps({"eos_token_id": TURN_END_ID}))
    tokenizer.save_pretrained(target)
    file = target / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.update(eos_token=TURN_END, pad_token=TURN_END)
    file.write_text(json.dumps(settings))


if __name__ == "__main__":
    convert(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
