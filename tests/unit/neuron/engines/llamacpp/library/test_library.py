import gc
import importlib.metadata

import pytest

from services.neuron.engines import EngineUnavailableError, create_engine
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.self_check import check_layouts


def test_the_pinned_build_passes_the_self_check(library: Library) -> None:
    check_layouts(library.model_default_params(), library.context_default_params())


@pytest.mark.parametrize("name", ["n_ctx", "type_k", "kv_unified", "samplers"])
def test_a_field_that_reads_differently_stops_the_engine(library: Library, name: str) -> None:
    context = library.context_default_params()
    setattr(context, name, 77 if name != "kv_unified" else True)

    with pytest.raises(ImportError, match=name):
        check_layouts(library.model_default_params(), context)


def test_another_build_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2027.1.1")

    with pytest.raises(EngineUnavailableError, match=r"2027\.1\.1"):
        create_engine("llamacpp")


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(EngineUnavailableError, match="'nope'"):
        create_engine("nope")


def test_the_log_outlives_every_library_of_the_process(library: Library) -> None:
    """llama.cpp has one callback, the newest; freed with its library, the next line would crash."""
    newest = Library.load()
    kept = newest.log.callback
    del newest
    gc.collect()

    assert kept is library.log.callback
    assert library.model_load_from_file(b"/nowhere", library.model_default_params()) is None
    assert library.log.last_words()
