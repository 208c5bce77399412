"""What the documents name is there: files, modules, tests, commands, and the places that they link to."""

import functools
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TOPS = ("bench", "deploy", "docs", "examples", "gpu", "protos", "scripts", "services", "tests")
PAGES = sorted(
    page
    for pattern in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/**/*.md",
        "bench/README.md",
        "services/*/README.md",
        "tests/*/README.md",
    )
    for page in ROOT.glob(pattern)
)
SOURCES = sorted(
    source
    for top in ("bench", "gpu", "services", "tests")
    for source in (ROOT / top).rglob("*.py")
    if source != pathlib.Path(__file__)
)
# docs/x.md, tests/unit/x.py::test_y, services/*/wire.py, tests/…/emulat*.py
PATH = re.compile(rf"(?<![\w/.$:<>-])(?:{'|'.join(TOPS)})/[\w./*-]*\*?(?:::\w+)?(?![\w$])")
MODULE = re.compile(r"(?<![\w/.-])(?:services|bench|tests|gpu)(?:\.\w+)+")
QUOTED = re.compile(r"`([\w./*-]+)`")
# A word in capitals stands for a name: scripts/test-recorded FOLDER, protos/released/VERSION.binpb.
PLACEHOLDER = re.compile(
    r"(?<![A-Za-z])(?!README|CONTRIBUTING|CHANGELOG|SECURITY)[A-Z]+(?![A-Za-z])"
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
# Made by a command that the page shows, or in another project's repository.
ELSEWHERE = re.compile(r"bench/results/gpu|docs/gguf\.md|tests/integration/\*\*/recordings/")


@functools.cache
def everything() -> str:
    """Every file and folder below `TOPS`, a path a line."""
    found = [
        path for top in TOPS for path in (ROOT / top).rglob("*") if "__pycache__" not in path.parts
    ]
    return "\n".join([*TOPS, *(str(path.relative_to(ROOT)) for path in found)])


@functools.cache
def is_there(path: str) -> bool:
    """Whether a path of the repository exists: a file, a folder, or a module without its ending.

    `*` is any name, `**/` any folders, a word in capitals any name too; behind `::` stands a test.
    """
    path, _, test = path.rstrip(".").partition("::")
    if ELSEWHERE.match(path):
        return True
    pattern = re.escape(PLACEHOLDER.sub("*", path.rstrip("/")))
    pattern = pattern.replace(r"\*\*/", "(?:[^/\n]+/)*").replace(r"\*", "[^/\n]*")
    found = re.findall(rf"^{pattern}(?:\.py)?$", everything(), re.MULTILINE)
    return any(not test or f"def {test}(" in (ROOT / file).read_text() for file in found)


def module_is_there(name: str) -> bool:
    """Whether a module exists, or the module before the last word or two has what they name."""
    parts = name.split(".")
    for length in range(len(parts), max(len(parts) - 3, 0), -1):
        base = ROOT.joinpath(*parts[:length])
        text = next(
            (file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()),
            None,
        )
        if text is None and base.is_dir() and length == len(parts):
            return True
        if text is not None:
            return all(re.search(rf"\b{word}\b", text.read_text()) for word in parts[length:])
    return False


@functools.cache
def names_in_services() -> tuple[frozenset[str], frozenset[str]]:
    """The folders directly below a service, and every name that a Python file has anywhere."""
    folders = {folder.name for folder in (ROOT / "services").glob("*/*") if folder.is_dir()}
    return frozenset(folders), frozenset(source.name for source in SOURCES)


def short_names(text: str, page: pathlib.Path) -> Iterator[str]:
    """Names between backticks that are short for a path and lead nowhere.

    `dialects/*/decode` may be anywhere below a service, or below the page's own folder; of
    `errors.py` any file of that name will do.
    """
    folders, files = names_in_services()
    for name in QUOTED.findall(text):
        first, _, rest = name.partition("/")
        if rest and (first in folders or (name.endswith(".py") and first not in TOPS)):
            below = name.rstrip("/")
            places = [f"services/**/{below}", str(page.parent.relative_to(ROOT) / below)]
            if not any(is_there(place) for place in places):
                yield name
        elif not rest and name.endswith(".py") and "*" not in name and name not in files:
            yield name


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: pathlib.Path):
    text = page.read_text()

    missing = [path for path in PATH.findall(text) if not is_there(path)]
    missing += [name for name in MODULE.findall(text) if not module_is_there(name)]
    missing += short_names(text, page)

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: pathlib.Path):
    broken = []
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (
            anchor and anchor not in {slug(title) for title in HEADING.findall(file.read_text())}
        ):
            broken.append(target)

    assert broken == []


def test_the_files_that_code_names_in_words_exist():
    words = re.compile(r"`[^`\n]*`|#.*|\"\"\"(?s:.*?)\"\"\"")
    missing = {}
    for source in SOURCES:
        named = [path for text in words.findall(source.read_text()) for path in PATH.findall(text)]
        if gone := [path for path in named if not is_there(path)]:
            missing[str(source.relative_to(ROOT))] = gone

    assert missing == {}


def test_a_name_that_leads_nowhere_is_found():
    page = ROOT / "docs" / "page.md"
    text = "`services/registry/nowhere.py`, `services.registry.nowhere`, `nowhere.py`, `dialects/*/nowhere`"

    assert not any(is_there(path) for path in PATH.findall(text))
    assert not any(module_is_there(name) for name in MODULE.findall(text))
    assert ["nowhere.py", "dialects/*/nowhere"] == list(short_names(text, page))
    assert is_there("tests/contract/test_docs.py::slug")
    assert not is_there("tests/contract/test_docs.py::nowhere")
