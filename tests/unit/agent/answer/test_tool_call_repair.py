import pytest

from services.agent.answer.tool_call_repair import read_arguments, read_call, read_calls

TOOLS = {
    "bash": ("command", "cwd"),
    "read_file": ("path",),
    "list_dir": ("path",),
    "write_file": ("path", "content"),
    "edit_file": ("path", "old_text", "new_text"),
}
LS = {"command": "ls"}


@pytest.mark.parametrize(
    ("text", "name", "arguments", "note"),
    [
        ('{"name": "bash", "arguments": {"command": "ls"}}', "bash", LS, ""),
        ('{"name": "bash", "parameters": {"command": "ls"}}', "bash", LS, ""),
        (
            '{"name": "bash", "arguments": {"command": "ls"}}}',
            "bash",
            LS,
            "1 surplus closing brace",
        ),
        (
            '{"name": "bash", "arguments": {"command": "ls"}}} } }',
            "bash",
            LS,
            "3 surplus closing braces",
        ),
        ('{"arguments": {"name": "bash", "command": "ls"}}', "bash", LS, "stood inside"),
        (
            '{"arguments": {"name": "bash", "arguments": {"command": "ls"}}}',
            "bash",
            LS,
            "stood inside",
        ),
        ('{"name": "bash", "arguments": "{\\"command\\": \\"ls\\"}"}', "bash", LS, "a string"),
        ('{"name": "bash", "command": "ls"}', "bash", LS, "beside the name"),
        ('{"function": {"name": "bash", "arguments": {"command": "ls"}}}', "bash", LS, "unwrapped"),
        ('{"arguments": {"command": "ls"}}', "bash", LS, "name was missing"),
        ('{"command": "ls", "cwd": "/"}', "bash", {**LS, "cwd": "/"}, "name was missing"),
        (
            '{"arguments": {"path": "a", "content": "b"}}',
            "write_file",
            {"path": "a", "content": "b"},
            "name was missing",
        ),
        (
            "<function=bash>\n<parameter=command>\nls\n-l\n</parameter>\n</function>",
            "bash",
            {"command": "ls\n-l"},
            "",
        ),
        ('{"name": "bash", "arguments": {"command": "a\nb"}}', "bash", {"command": "a\nb"}, ""),
        ('{"name": "nonsense", "arguments": {}}', "nonsense", {}, ""),
    ],
)
def test_calls_that_can_be_read(text: str, name: str, arguments: object, note: str):
    reading = read_call(text, TOOLS)

    assert (name, arguments, "") == (reading.name, reading.arguments, reading.error)
    assert note in reading.note
    assert bool(note) == bool(reading.note)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ls",
        "[1]",
        '{"name": "bash", "arguments": {"command": "l',
        '{"name": "bash", "arguments": {"command": "ls"}}}}}}',
        '{"arguments": {"path": "a"}}',
        '{"name": "bash", "arguments": [1]}',
        '{"name": "bash", "arguments": "ls"}',
    ],
)
def test_calls_that_cannot_be_read_say_why(text: str):
    reading = read_call(text, TOOLS)

    assert reading.arguments is None
    assert reading.error


def test_native_arguments():
    assert {} == read_arguments("t", "").arguments
    assert {"a": 1} == read_arguments("t", '{"a": 1}').arguments
    assert {"a": "\N{REPLACEMENT CHARACTER}"} == read_arguments("t", '{"a": "\\ud800"}').arguments
    assert "surplus" in read_arguments("t", '{"a": 1}}').note
    assert read_arguments("t", '{"a": 1').arguments is None
    assert read_arguments("t", "[]").error


WRITE = "<function=write_file>\n<parameter=path>\nx\n</parameter>\n<parameter=content>\n{}"
WHOLE = WRITE + "\n</parameter>\n</function>"


@pytest.mark.parametrize(
    "text",
    [
        WHOLE.format("one\n</parameter>\nthree"),
        WHOLE.format("one\n</function>\nthree"),
        WHOLE.format("one\n<parameter=path>\n/etc/x\n</parameter>\nthree"),
        WHOLE.format("one\n<parameter=other>\nthree"),
        WHOLE.format("one\n</parameter>\n</function>\nthree"),
        WRITE.format("half of it"),
    ],
)
def test_a_value_that_holds_the_markers_of_its_call_writes_no_half_of_it(text: str):
    reading = read_calls(text, {"write_file": ("path", "content")})[-1]

    assert reading.arguments is None
    assert "not clear" in reading.error


def test_a_call_whose_last_marker_is_missing_is_read():
    for text in (WHOLE.format("one").removesuffix("</function>"), WRITE.format("one</function>")):
        (reading,) = read_calls(text, {"write_file": ("path", "content")})
        assert {"path": "x", "content": "one"} == reading.arguments
