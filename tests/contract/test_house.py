"""The house rules of CONTRIBUTING.md that no linter knows: sizes, floors, where a test stands."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.structure import circles, floors_of, parts_of

ROOT = Path(__file__).parents[2]
MOST_LINES, MOST_TEST_LINES, MOST_MODULES, MOST_POSITIONAL = 300, 400, 16, 5

# Floors of a service; docs/architecture.md names them. Who needs one more says there what it is for.
MOST_FLOORS = {"registry": 10, "neuron": 8, "gateway": 7}

# One file a family of models, however many there are.
ANY_NUMBER = {"services/neuron/chat/tool_calls/families"}
LONGER: dict[str, str] = {}
# Functions whose parameters somebody else has set, or that typer reads.
POSITIONAL = {
    "services/cli/commands/bench.py:bench": "typer makes options of them",
    "services/cli/commands/up.py:up": "typer makes options of them",
    "services/gateway/http1/hypercorn/codec.py:__init__": "Hypercorn's constructor",
    "services/neuron/engines/exllamav2/attention/kernels.py": "Triton kernels",
    "services/neuron/engines/exllamav2/attention/stand_in.py": "flash-attn's functions",
}
# Objects of more fields than that which are made by place, not by name.
MADE_BY_PLACE = {
    "services/backplane/errors.py:Row",  # a table, with a row for each reason
    "services/neuron/engines/exllamav2/parallel/model.py:PagedParams",  # the library's
}
# Class names that stand in several modules; those of a dialect's fields and of an engine may.
NAMED_ALIKE = {
    "Delta": "a piece of output: an engine's, an upstream's",
    "Endpoint": "of a model, as the agent asks it; of a path, as the gateway serves it",
    "Endpoints": "likewise",
    "HeldPrefix": "the same, told and heard",
    "Instance": "the same, in its neuron and as the registry knows it",
    "Load": "a tool of the agent's, a frame to the worker",
    "Neighbour": "the same, named and asked",
    "Queued": "a step on the way, of a placement and of a task",
    "Reasoning": "a part of an answer, read by the agent and by a dialect",
    "SessionStream": "both ends of one",
    "ShareKey": "the same, leased and granted",
    "Sum": "a tool's arguments in the checks of two SDKs",
    "Text": "as `Reasoning`",
}
# What has no one module: promises of a whole folder.
OF_A_FOLDER = {
    "tests/unit/cli/test_main.py": "of `__main__`",
    "tests/unit/gateway/dialects/test_cut_calls.py": "every dialect",
    "tests/unit/gateway/dialects/test_odd_values.py": "every dialect",
    "tests/unit/gateway/dialects/test_published_types.py": "every dialect",
    "tests/unit/gateway/dialects/test_sdk_parsers.py": "every dialect",
    "tests/unit/gateway/dialects/test_streams.py": "every dialect",
    "tests/unit/gateway/dialects/test_translation.py": "every dialect",
    "tests/unit/neuron/chat/test_odd_requests.py": "template, parsers and formats together",
    "tests/unit/neuron/chat/tool_calls/test_cut.py": "every family",
    "tests/unit/neuron/chat/tool_calls/test_unreadable.py": "every family",
    "tests/unit/neuron/engines/exllamav2/test_importing.py": "the package without its libraries",
    "tests/unit/neuron/worker/test_contained.py": "an exception anywhere in the worker",
    "tests/unit/registry/control/test_faults.py": "an exception anywhere in a placement",
}


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines(path: Path) -> int:
    return path.read_text().count("\n")


def test_modules_are_short():
    long = {named(path) for path in modules("services", "bench", "gpu") if lines(path) > MOST_LINES}

    assert long <= LONGER.keys()


def test_test_files_are_short():
    assert not {named(path) for path in modules("tests") if lines(path) > MOST_TEST_LINES}


def test_folders_are_small():
    found = Counter(path.parent for path in modules("services") if path.name != "__init__.py")
    large = {named(folder) for folder, count in found.items() if count > MOST_MODULES}

    assert large <= ANY_NUMBER


@pytest.mark.parametrize(("service", "most"), MOST_FLOORS.items())
def test_services_have_few_floors(service: str, most: int):
    floors = floors_of(parts_of(service))

    assert max(floors.values()) <= most, sorted(floors.items(), key=lambda one: -one[1])


def test_nothing_imports_in_a_circle():
    assert set() == circles()


def test_the_bounds_of_floors_are_told():
    told = ", ".join(f"{name} {most}" for name, most in MOST_FLOORS.items())

    assert told in (ROOT / "docs/architecture.md").read_text().replace(" floors", "")


@pytest.mark.parametrize("folder", ["services", "bench", "gpu"])
def test_what_takes_many_arguments_takes_them_by_name(folder: str):
    found: set[str] = set()
    for path in modules(folder):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
                if len(given) - (given[:1] in (["self"], ["cls"])) > MOST_POSITIONAL:
                    found.add(f"{named(path)}:{node.name}")

    assert not {one for one in found if not {one, one.partition(":")[0]} & POSITIONAL.keys()}


@pytest.mark.parametrize("folder", ["services", "bench", "gpu"])
def test_objects_of_many_fields_are_made_by_name(folder: str):
    found: set[str] = set()
    for path in modules(folder):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) > MOST_POSITIONAL:
                made = ast.unparse(node.func).rpartition(".")[2]
                if made[:1].isupper():
                    found.add(f"{named(path)}:{made}")

    assert found <= MADE_BY_PLACE


def test_a_class_name_means_one_thing():
    found: dict[str, set[str]] = {}
    for path in modules("services"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, set()).add(named(path))
    alike = {
        name
        for name, places in found.items()
        if len(places) > 1
        and not any(
            all(place.startswith(f"services/{folder}/") for place in places)
            for folder in ("gateway/dialects", "neuron/engines")
        )
    }

    assert alike == NAMED_ALIKE.keys()


def test_unit_tests_stand_where_their_module_does():
    lost: set[str] = set()
    for path in modules("tests/unit"):
        if path.name.startswith("test_"):
            inside = path.relative_to(ROOT / "tests/unit").parent / path.stem.removeprefix("test_")
            places = (ROOT / "services" / inside, ROOT / inside)
            kinds = (".py", ".sh", "/__init__.py")
            if not any(Path(f"{place}{kind}").exists() for place in places for kind in kinds):
                lost.add(named(path))

    assert lost <= OF_A_FOLDER.keys()
