"""Which sources the catalogues of this host name."""

from __future__ import annotations

import os

import pytest

from services.neuron.sources.catalogue_files import CatalogueFiles

DIGEST = "ab" * 32


def test_sources_are_known_wherever_they_stand_with_their_digests(tmp_path):
    file = tmp_path / "models.toml"
    file.write_text(f"""
[[models]]
id = "a"
source = "path:/mnt/a.gguf"
adapters = ["path:/mnt/lora"]
draft = {{ source = "hf:b/c@1#sha256={DIGEST}" }}
""")
    catalogue = CatalogueFiles([str(file)])

    assert "" == catalogue.digest_of("path:/mnt/a.gguf")
    assert "" == catalogue.digest_of("path:/mnt/lora")
    assert DIGEST == catalogue.digest_of("hf:b/c@1")
    assert catalogue.digest_of("path:/mnt") is None


def test_a_file_that_has_changed_or_gone_is_looked_at_again(tmp_path):
    file = tmp_path / "models.toml"
    catalogue = CatalogueFiles([str(file)])
    assert catalogue.digest_of("path:/a") is None

    file.write_text('models = [{ source = "path:/a" }]')
    assert "" == catalogue.digest_of("path:/a")
    file.write_text('models = [{ source = "path:/bc" }]')
    assert catalogue.digest_of("path:/a") is None
    file.unlink()
    assert catalogue.digest_of("path:/bc") is None


@pytest.mark.parametrize("text", ["models = [", "\udc80", "a = " + "[" * 5000])
def test_a_broken_file_names_nothing(tmp_path, text):
    file = tmp_path / "models.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    os.utime(file, (1, 1))

    assert CatalogueFiles([str(file)]).digest_of("path:/a") is None
