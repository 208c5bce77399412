"""The package can be imported where its libraries are not."""

import subprocess
import sys

# What a machine without the engine has: everything but these.
_BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "exllamav2", "triton", "tokenizers", "PIL"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _BLOCK + program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_engine_and_its_pure_modules_need_no_torch() -> None:
    run(
        "import services.neuron.engines.exllamav2 as package\n"
        "from services.neuron.engines.exllamav2 import build, configuration, engine, fault_history\n"
        "from services.neuron.engines.exllamav2 import faults, intake, library, logit_rules, probe\n"
        "from services.neuron.engines.exllamav2 import sampling, sizing, vocabulary, weights\n"
        "from services.neuron.engines.exllamav2.attention import choice\n"
        "assert 'torch' not in sys.modules\n"
    )


def test_making_the_engine_says_what_is_missing() -> None:
    said = run(
        "from services.neuron.engines import EngineUnavailableError, create_engine\n"
        "try:\n    create_engine('exllamav2')\n"
        "except EngineUnavailableError as error:\n    print(error)\n"
    )

    assert said == "torch is not installed: pip install 'cortex-fleet[exllamav2]'\n"
