"""Random models that see, one for each kind of tower that the library has; a few 100 kilobytes.

Named as published folders name their tensors, configured as transformers 5 writes it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.doubles.vocabulary import Vocabulary
from tests.engines.exllamav2 import folders

WIDTH = 32
INNER = 64
TEXT = 64
PATCH = 14
_QWEN = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
_PIXTRAL = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")
_GEMMA = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "rescale_factor": 1 / 255,
}
Shapes = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One family.

    Attributes:
        architecture: in `config.json`.
        markers: control tokens; what the template writes for a picture are the first of them.
        marker: how many of them that is.
        prefix: before the language model's tensors.
        shapes: of everything beyond a Llama's tensors; bigger than one dimension is a matrix.
        vision: `vision_config`.
        top: other settings of `config.json`, from the markers' ids.
        text: other settings of the language model.
        processor: `preprocessor_config.json`.
    """

    architecture: str
    markers: tuple[str, ...]
    marker: int
    prefix: str
    shapes: Shapes
    vision: Mapping[str, Any]
    top: Callable[[list[int]], dict[str, Any]]
    text: Mapping[str, Any]
    processor: Mapping[str, Any]


def build(folder: Path, kind: Kind) -> Path:
    """Writes a model of a kind."""
    is_gemma = kind.markers == _GEMMA
    folders.build_random(folder, markers=kind.markers, said=40)
    random = np.random.default_rng(7)
    tensors: dict[str, Any] = {}
    for name, values in load_file(folder / "model.safetensors").items():
        if name == "lm_head.weight" and is_gemma:
            continue
        # Gemma's norms hold what is added to one; its embedding is the head too.
        adds = is_gemma and name.endswith("norm.weight")
        scale = TEXT**0.5 if is_gemma and "embed_tokens" in name else 1
        tensors[f"{kind.prefix}{name}"] = (values - adds) / scale
    for name, shape in kind.shapes.items():
        spread = 1 / np.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.1
        values = random.standard_normal(shape) * spread
        is_scale = len(shape) == 1 and name.endswith("weight") and not is_gemma
        is_siglip_scale = "layer_norm" in name or "layernorm" in name
        if name.endswith("weight") and len(shape) == 1 and (is_scale or is_siglip_scale):
            values += 1
        tensors[name] = values
    save_file({n: v.astype(np.float16) for n, v in tensors.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    vocabulary = Vocabulary(markers=kind.markers)
    ids = [vocabulary.tokens.index(marker) for marker in kind.markers]
    text = {**config, **kind.text}
    for name in ("architectures", "rope_theta"):
        del text[name]
    whole = {
        "architectures": [kind.architecture],
        "text_config": text,
        "vision_config": dict(kind.vision),
        "tie_word_embeddings": is_gemma,
        **kind.top(ids),
    }
    (folder / "config.json").write_text(json.dumps(whole))
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(kind.processor)))
    return folder


def _attention_biases() -> Shapes:
    sizes = {"q": TEXT, "k": TEXT // 2, "v": TEXT // 2}
    return {
        f"model.layers.{layer}.self_attn.{name}_proj.bias": (size,)
        for layer in range(2)
        for name, size in sizes.items()
    }


def _with_biases(shapes: Shapes) -> Shapes:
    return shapes | {f"{name[:-6]}bias": (shape[0],) for name, shape in shapes.items()}


def _qwen_shapes(*, is_first: bool) -> Shapes:
    blocks: Shapes = {}
    norms: Shapes = {"visual.merger.ln_q.weight": (WIDTH,)}
    for at in ("visual.blocks.0.", "visual.blocks.1."):
        blocks |= {
            f"{at}attn.qkv.weight": (3 * WIDTH, WIDTH),
            f"{at}attn.proj.weight": (WIDTH,) * 2,
        }
        names = ("fc1", "fc2") if is_first else ("up_proj", "down_proj")
        blocks |= {f"{at}mlp.{names[0]}.weight": (INNER, WIDTH)}
        blocks |= {f"{at}mlp.{names[1]}.weight": (WIDTH, INNER)}
        if not is_first:
            blocks |= {f"{at}mlp.gate_proj.weight": (INNER, WIDTH)}
        norms |= {f"{at}norm{number}.weight": (WIDTH,) for number in (1, 2)}
    four = 4 * WIDTH
    blocks |= {
        "visual.merger.mlp.0.weight": (four, four),
        "visual.merger.mlp.2.weight": (TEXT, four),
    }
    return {
        "visual.patch_embed.proj.weight": (WIDTH, 3, 2, PATCH, PATCH),
        **_with_biases(blocks),
        **(_with_biases(norms) if is_first else norms),
        **_attention_biases(),
    }


def _pixtral_shapes(projector: Shapes) -> Shapes:
    shapes: Shapes = {"patch_conv.weight": (WIDTH, 3, PATCH, PATCH), "ln_pre.weight": (WIDTH,)}
    for at in ("transformer.layers.0.", "transformer.layers.1."):
        shapes |= {f"{at}attention.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
        shapes |= {f"{at}{name}.weight": (WIDTH,) for name in ("attention_norm", "ffn_norm")}
        shapes |= {f"{at}feed_forward.{n}_proj.weight": (INNER, WIDTH) for n in ("gate", "up")}
        shapes |= {f"{at}feed_forward.down_proj.weight": (WIDTH, INNER)}
    tower = {f"vision_tower.{name}": shape for name, shape in shapes.items()}
    return tower | {f"multi_modal_projector.{name}": shape for name, shape in projector.items()}


def _gemma_shapes() -> Shapes:
    tower: Shapes = {"embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH)}
    tower |= {"post_layernorm.weight": (WIDTH,)}
    for at in ("encoder.layers.0.", "encoder.layers.1."):
        tower |= {f"{at}layer_norm{number}.weight": (WIDTH,) for number in (1, 2)}
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tower |= {f"{at}self_attn.{name}.weight": (WIDTH, WIDTH)}
        tower |= {f"{at}mlp.fc1.weight": (INNER, WIDTH), f"{at}mlp.fc2.weight": (WIDTH, INNER)}
    shapes: Shapes = {
        f"vision_tower.vision_model.{name}": shape for name, shape in _with_biases(tower).items()
    }
    for layer in range(2):
        at = f"language_model.model.layers.{layer}."
        shapes |= {f"{at}self_attn.{name}_norm.weight": (TEXT // 2,) for name in "qk"}
        shapes |= {f"{at}{n}_feedforward_layernorm.weight": (TEXT,) for n in ("pre", "post")}
    return shapes | {
        "vision_tower.vision_model.embeddings.position_embedding.weight": (16, WIDTH),
        "multi_modal_projector.mm_input_projection_weight": (WIDTH, TEXT),
        "multi_modal_projector.mm_soft_emb_norm.weight": (WIDTH,),
    }


def _qwen(architecture: str, *, is_first: bool) -> Kind:
    sizes: dict[str, Any] = (
        {"embed_dim": WIDTH, "hidden_size": TEXT, "mlp_ratio": INNER // WIDTH}
        if is_first
        else {
            "hidden_size": WIDTH, "out_hidden_size": TEXT, "intermediate_size": INNER,
            "window_size": 4 * PATCH, "fullatt_block_indexes": [1],
        }
    )  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    return Kind(
        architecture, _QWEN, 3, "", _qwen_shapes(is_first=is_first),
        vision={
            **sizes, "depth": 2, "num_heads": 2, "patch_size": PATCH, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "rope_parameters": {"rope_theta": 1e4, "rope_type": "axial"},
        },
        top=lambda ids: {
            "model_type": "qwen2_vl" if is_first else "qwen2_5_vl", "image_token_id": ids[1],
            "vision_start_token_id": ids[0], "vision_end_token_id": ids[2],
        },
        text={"rope_parameters": rope, "model_type": f"qwen2{'' if is_first else '_5'}_vl_text"},
        processor={
            **_CLIP, "image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": PATCH,
            "temporal_patch_size": 2, "merge_size": 2,
            "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
        },
    )  # fmt: skip


def _pixtral(architecture: str, model_type: str, projector: Shapes, **top: Any) -> Kind:
    return Kind(
        architecture, _PIXTRAL, 1, "language_model.", _pixtral_shapes(projector),
        vision={
            "model_type": "pixtral", "hidden_size": WIDTH, "intermediate_size": INNER,
            "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": WIDTH // 2,
            "image_size": 112, "patch_size": PATCH, "hidden_act": "silu",
            "rope_parameters": {"rope_theta": 1e4, "rope_type": "axial"},
        },
        top=lambda ids: {
            "model_type": model_type, "image_token_index": ids[0], "projector_hidden_act": "gelu",
            "vision_feature_layer": -1, **top,
        },
        text={
            "model_type": "mistral", "head_dim": TEXT // 2, "sliding_window": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        processor={
            **_CLIP, "image_processor_type": "PixtralImageProcessorFast", "resample": 3,
            "patch_size": PATCH, "size": {"longest_edge": 112},
        },
    )  # fmt: skip


_LINEAR: Shapes = {"linear_1.weight": (TEXT, WIDTH), "linear_2.weight": (TEXT, TEXT)}
_MERGER: Shapes = {"norm.weight": (WIDTH,), "patch_merger.merging_layer.weight": (WIDTH, 4 * WIDTH)}
KINDS: Mapping[str, Kind] = {
    "Qwen2-VL": _qwen("Qwen2VLForConditionalGeneration", is_first=True),
    "Qwen2.5-VL": _qwen("Qwen2_5_VLForConditionalGeneration", is_first=False),
    "Pixtral": _pixtral(
        "LlavaForConditionalGeneration", "llava", _with_biases(_LINEAR),
        vision_feature_select_strategy="full", multimodal_projector_bias=True,
    ),
    "Mistral 3": _pixtral(
        "Mistral3ForConditionalGeneration", "mistral3", {**_LINEAR, **_MERGER},
        multimodal_projector_bias=False, spatial_merge_size=2,
    ),
    "Gemma 3": Kind(
        "Gemma3ForConditionalGeneration", _GEMMA, 1, "language_model.", _gemma_shapes(),
        vision={
            "model_type": "siglip_vision_model", "hidden_size": WIDTH, "intermediate_size": INNER,
            "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56,
            "patch_size": PATCH, "vision_use_head": False,
        },
        top=lambda ids: {
            "model_type": "gemma3", "mm_tokens_per_image": 4, "image_token_index": ids[2],
            "boi_token_index": ids[0], "eoi_token_index": ids[1],
        },
        text={
            "model_type": "gemma3_text", "head_dim": TEXT // 2, "query_pre_attn_scalar": TEXT // 2,
            "sliding_window": 512, "layer_types": ["sliding_attention"] * 2,
            "hidden_activation": "gelu_pytorch_tanh",
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
        processor={
            "image_processor_type": "Gemma3ImageProcessor", "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "resample": 2,
            "size": {"height": 56, "width": 56},
        },
    ),
}  # fmt: skip
