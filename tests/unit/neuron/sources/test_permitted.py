"""Which sources a neuron's own settings let it load from."""

from __future__ import annotations

import pytest

from services.backplane.errors import FleetError, Reason
from services.neuron.settings import AllowedSources
from services.neuron.sources.permitted import PermittedSources


def test_everything_is_allowed_where_nothing_is_said():
    PermittedSources(None).check("package", "any==1")


def test_a_folder_is_allowed_with_all_below_it_and_nothing_beside_it(tmp_path):
    permitted = PermittedSources(AllowedSources(folders=(str(tmp_path / "a"),)))

    permitted.check("path", str(tmp_path / "a" / "b" / "c.gguf"))
    permitted.check("path", str(tmp_path / "a"))
    for outside in (tmp_path, tmp_path / "ab", tmp_path / "a" / ".." / "b"):
        with pytest.raises(FleetError) as caught:
            permitted.check("path", str(outside))
        assert caught.value.reason is Reason.SOURCE_FORBIDDEN


def test_a_folder_that_is_itself_a_link_is_allowed_where_it_leads(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    permitted = PermittedSources(AllowedSources(), folders=[tmp_path / "link"])

    permitted.check("path", str(tmp_path / "link" / "m.gguf"))
    permitted.check("path", str(tmp_path / "real" / "m.gguf"))


def test_letters_of_an_owner_may_be_large_or_small():
    permitted = PermittedSources(AllowedSources(owners=("HuggingFaceTB",)))

    permitted.check("hf", "huggingfacetb/SmolLM2@main")
    with pytest.raises(FleetError, match="nothing of someone"):
        permitted.check("hf", "someone/HuggingFaceTB@main")


def test_what_the_neurons_own_settings_name_is_allowed():
    permitted = PermittedSources(AllowedSources(sources=()), own=["package:own==1"])

    permitted.check("package", "own==1")
    with pytest.raises(FleetError, match="sources of"):
        permitted.check("package", "own==2")


def test_what_a_catalogue_of_this_host_names_is_allowed(tmp_path):
    file = tmp_path / "models.toml"
    file.write_text(
        f'models = [{{ source = "path:/mnt/a" }}, {{ source = "hf:b/c#sha256={"1a" * 32}" }}]'
    )
    permitted = PermittedSources(AllowedSources(sources=(), catalogues=(str(file),)))

    permitted.check("path", "/mnt/a")
    permitted.check("hf", "b/c", "1A" * 32)
    for scheme, location in (("path", "/mnt/a/../b"), ("path", "/mnt"), ("hf", "b/c")):
        with pytest.raises(FleetError):
            permitted.check(scheme, location)


@pytest.mark.parametrize("owner", ["ac\u212ae", "acke.", "ac\uff4be", "acke\u200b"])
def test_an_owner_in_another_spelling_is_not_the_same(owner):
    permitted = PermittedSources(AllowedSources(owners=("acke",)))

    with pytest.raises(FleetError):
        permitted.check("hf", f"{owner}/tiny@main")


def test_a_source_that_the_settings_name_with_a_digest_is_allowed_with_that_alone():
    digest = "a1" * 32
    permitted = PermittedSources(
        AllowedSources(sources=()), own=[f"package:own==1#sha256={digest}"]
    )

    permitted.check("package", "own==1", digest.upper())
    for other in ("", "b2" * 32):
        with pytest.raises(FleetError, match="sources of"):
            permitted.check("package", "own==1", other)
