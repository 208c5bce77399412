"""A model's files, as Ollama's clients are told of them."""

from __future__ import annotations

import datetime as dt

import pytest

from cortex.v1 import model_pb2
from services.gateway.dialects.lookup import ListedModel
from services.gateway.dialects.ollama import description

WRITTEN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def described(architecture: str = "llama") -> ListedModel:
    weights = model_pb2.StoredModel(
        bytes=99,
        format="gguf",
        architecture=architecture,
        quantization="Q4_1",
        parameter_size="135M",
        fingerprint="ab" * 32,
    )
    weights.modified_at.FromDatetime(WRITTEN)
    return ListedModel("m", max_context_tokens=8192, weights=weights, created_unix_seconds=5)


def test_files_are_told_in_its_words() -> None:
    one = described()

    assert description.size_bytes(one) == 99
    assert description.digest(one) == "ab" * 32
    assert description.modified_at(one) == "2026-01-02T03:04:05Z"
    assert description.details(one) == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "135M",
        "quantization_level": "Q4_1",
    }
    assert description.model_info(one)["llama.context_length"] == 8192


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        ("LlamaForCausalLM", "llama"),
        ("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl"),
        ("BertModel", "bert"),
        ("GPT2LMHeadModel", "gpt2"),
        ("Model", "Model"),
        ("qwen3moe", "qwen3moe"),
        ("", ""),
    ],
)
def test_a_family_is_what_a_class_is_called_after(architecture: str, family: str) -> None:
    assert description.details(described(architecture))["family"] == family


def test_what_nobody_has_told_is_empty_but_for_a_digest() -> None:
    one = ListedModel("m", created_unix_seconds=5)

    assert description.size_bytes(one) == 0
    assert description.details(one)["families"] == []
    assert description.modified_at(one) == "1970-01-01T00:00:05Z"
    assert len(description.digest(one)) == 64
    assert description.digest(one) != description.digest(ListedModel("n"))
    assert description.model_info(one) == {
        "general.architecture": "unknown",
        "general.basename": "m",
    }
