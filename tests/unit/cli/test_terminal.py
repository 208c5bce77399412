import contextlib
import io

import pytest
import typer
from rich.console import Console

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as reg
from services.cli import terminal
from services.cli.tables import models_table, table_of

LONG = "unsloth/Qwen3-Coder-480B-A35B-Instruct-GGUF:UD-Q4_K_XL"


@pytest.fixture
def narrow(monkeypatch):
    """A terminal of 80 columns, and what is written to it."""
    written = io.StringIO()
    console = Console(file=written, width=80, force_terminal=True, color_system=None, markup=False)
    monkeypatch.setattr(terminal, "out", console)
    return written


@pytest.mark.parametrize("words", ["[/x]", "pip install 'cortex-fleet[hf]'", "[red]", ":smile:"])
def test_what_looks_like_markup_is_printed_as_it_is(capsys, words):
    with contextlib.suppress(typer.Exit):
        terminal.fail(words)
    terminal.out.print(words)
    table = table_of("what")
    table.add_row(words)
    terminal.show(table)
    with terminal.waiting(words) as status:
        terminal.keep_waiting(status, words)

    out, err = capsys.readouterr()
    assert f"cortex: {words}\n" == err
    assert out.startswith(f"{words}\n")
    assert f"│ {words} │" in out


def listed():
    entry = reg.CatalogueModel(model=LONG, aliases=["a-rather-long-alias-of-it"])
    return models_table([op.ModelStatus(model=entry)])


def test_an_identifier_is_whole_in_a_narrow_terminal(narrow):
    terminal.show(listed())

    assert LONG in narrow.getvalue()
    assert "a-rather-long-alias-of-it" in narrow.getvalue()
    assert "…" not in narrow.getvalue()


def test_a_row_is_a_line_in_a_pipe(capsys):
    piped = terminal._console(io.StringIO())

    piped.print(listed())

    out = capsys.readouterr().out
    assert LONG in out
    assert 5 == len(out.splitlines())


def test_a_table_that_fits_is_no_wider_than_it_has_to_be(narrow):
    table = table_of("a")
    table.add_row("b")

    terminal.show(table)

    assert {5} == {len(line) for line in narrow.getvalue().splitlines()}


def test_several_answers_are_a_line_each(capsys):
    for freed in (1, 2):
        terminal.print_json_line(op.UnloadModelResponse(freed_bytes=freed))

    lines = capsys.readouterr().out.splitlines()
    assert 2 == len(lines)
    assert '"freed_bytes": 2' in lines[1]


@pytest.mark.parametrize(
    "words", ["Grüße 你好　x", "a\N{ZERO WIDTH JOINER}b", "\N{NO-BREAK SPACE}"]
)
def test_words_in_any_script_are_printed_as_they_are(words):
    assert words == terminal.printable(words)


def test_a_complaint_of_others_does_nothing_to_the_terminal(capsys):
    with contextlib.suppress(typer.Exit):
        terminal.fail("one\x1b[2J\ntwo\ud800")

    assert "cortex: one\\x1b[2J\ntwo\\ud800\n" == capsys.readouterr().err
