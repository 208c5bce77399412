"""The package can be imported where its libraries are not."""

import subprocess
import sys

# What a machine without the engine has: everything but these.
_BLOCK = """
import sys

BLOCKED = {"torch", "exllamav2", "triton", "tokenizers", "PIL"}

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _BLOCK + program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# What a worker imports once it loads a model, and nobody else.
_LOADED_LATE = {
    "assembling", "attention.dense", "attention.fa3", "attention.kernels", "attention.paged_torch",
    "attention.paged_triton", "attention.stand_in", "batch.filters", "batch.jobs",
    "batch.cache_tracker", "batch.loop", "batch.placing", "batch.prefill_share",
    "batch.stream_factory", "batch.streams", "batch.suspension", "embedder", "library.rotary",
    "model.batch_generator", "model.loading", "paging.copies", "paging.hibernation",
    "paging.scoped_job", "parallel.collectives", "parallel.follower", "parallel.leader",
    "parallel.loading", "parallel.model", "parallel.modules", "parallel.slices", "text.tokeniser",
}  # fmt: skip


_IMPORT_ALL = """
import importlib, pkgutil, services
for found in pkgutil.walk_packages(services.__path__, "services."):
    try:
        importlib.import_module(found.name)
        assert found.name not in late, found.name
    except ModuleNotFoundError as error:
        # Of the other services' packages some may be missing where engines are tested.
        is_ours = error.name.partition(".")[0] in BLOCKED
        assert found.name in late or not is_ours, (found.name, error)
print(len([name for name in sys.modules if name.startswith("services.")]))
assert not BLOCKED & set(sys.modules)
"""


def test_everything_else_can_be_imported_without_torch() -> None:
    late = {f"services.neuron.engines.exllamav2.{name}" for name in _LOADED_LATE}

    said = run(f"late = {late!r}\n{_IMPORT_ALL}")

    assert int(said) > 150


def test_making_the_engine_says_what_is_missing() -> None:
    said = run(
        "from services.neuron.engines import EngineUnavailableError, create_engine\n"
        "try:\n    create_engine('exllamav2')\n"
        "except EngineUnavailableError as error:\n    print(error)\n"
    )

    assert said == "torch is not installed: pip install 'cortex-fleet[exllamav2]'\n"
