"""How people name what they want to pull."""

from __future__ import annotations

import pytest

from services.cli.stored.disks import pull_source

DIGEST = f"#sha256={'0' * 64}"


@pytest.mark.parametrize(
    ("text", "source", "quant"),
    [
        ("hf:a/b", "hf:a/b@main", ""),
        ("hf:a/b@v1", "hf:a/b@v1", ""),
        ("hf:a/b:Q4_K_M", "hf:a/b@main", "Q4_K_M"),
        ("hf:a/b@v1:q8_0", "hf:a/b@v1", "q8_0"),
        ("hf:a/b:x-Q4_K_M.gguf", "hf:a/b@main/x-Q4_K_M.gguf", ""),
        ("hf:a/b:*Q4*", "hf:a/b@main/*Q4*", ""),
        ("hf:a/b:deep/x.gguf", "hf:a/b@main/deep/x.gguf", ""),
        ("hf:a/b@v1/deep/x.gguf", "hf:a/b@v1/deep/x.gguf", ""),
        (f"hf:a/b:x.gguf{DIGEST}", f"hf:a/b@main/x.gguf{DIGEST}", ""),
        ("package:p==1", "package:p==1", ""),
    ],
)
def test_a_source_as_people_write_it(text, source, quant):
    assert pull_source(text) == (source, quant)


@pytest.mark.parametrize("text", ["", "a/b", "hf:a", "hf:a/b/", "hf:a/b:", "hf:a/b@", "http://x/y"])
def test_what_is_no_source_is_told(text):
    with pytest.raises(ValueError, match="is no source"):
        pull_source(text)
