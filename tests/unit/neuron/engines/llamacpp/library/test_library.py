import ctypes.util
import gc
from pathlib import Path

import pytest

from services.neuron.engines import EngineUnavailableError, create_engine
from services.neuron.engines.llamacpp.library import builds
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.locate import Found, locate
from services.neuron.engines.llamacpp.library.self_check import check_layouts
from services.neuron.engines.llamacpp.library.structs import ContextParams05, ModelParams


def test_the_pinned_build_passes_the_self_check(library: Library) -> None:
    check_layouts(library.model_default_params(), library.context_default_params())


@pytest.mark.parametrize("name", ["n_ctx", "type_k", "kv_unified", "samplers"])
def test_a_field_that_reads_differently_stops_the_engine(library: Library, name: str) -> None:
    context = library.context_default_params()
    setattr(context, name, 77 if name != "kv_unified" else True)

    with pytest.raises(ImportError, match=name):
        check_layouts(library.model_default_params(), context)


def test_a_build_that_is_not_known_is_refused_with_both_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = [build for build in builds.BUILDS if build.version != "0.6.0"]
    monkeypatch.setattr(builds, "BUILDS", older)

    with pytest.raises(EngineUnavailableError, match=r"0\.6\.0-dev, and 0\.5\.0 can be used"):
        create_engine("llamacpp")


def test_a_build_that_is_laid_out_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = builds.Build("0.6.0", ModelParams, ContextParams05)
    monkeypatch.setattr(builds, "BUILDS", (wrong,))

    with pytest.raises(EngineUnavailableError, match=r"not laid out as 0\.6\.0: ContextParams05\."):
        create_engine("llamacpp")


def test_a_library_that_is_no_llama_cpp_is_refused() -> None:
    other = Path(ctypes.util.find_library("c") or "")

    with pytest.raises(ImportError, match="does not tell its version"):
        Library(Found(other, "named by a test"))


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(EngineUnavailableError, match="'nope'"):
        create_engine("nope")


def test_the_log_outlives_every_library_of_the_process(library: Library) -> None:
    """llama.cpp has one callback, the newest; freed with its library, the next line would crash."""
    newest = Library(locate(""))
    kept = newest.log.callback
    del newest
    gc.collect()

    assert kept is library.log.callback
    assert library.model_load_from_file(b"/nowhere", library.model_default_params()) is None
    assert library.log.last_words()
