import importlib.util
import pathlib

ROOT = pathlib.Path(__file__).parents[2]


def _build_hook():
    spec = importlib.util.spec_from_file_location("build_hook", ROOT / "protos" / "build_hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_code_matches_the_protos():
    hook = _build_hook()

    assert hook.DIGEST.read_text().strip() == hook.digest(), "run: python protos/build_hook.py"


def test_the_generators_of_build_and_development_are_the_same():
    text = (ROOT / "pyproject.toml").read_text()

    assert text.count("grpcio-tools==") == 2
    assert (
        len(
            {
                line.split("grpcio-tools==")[1][:6]
                for line in text.splitlines()
                if "grpcio-tools==" in line
            }
        )
        == 1
    )
