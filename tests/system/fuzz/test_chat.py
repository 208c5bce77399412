"""Chats and outputs of models, changed by chance, through the templates and the parsers."""

import itertools
import json
import pathlib
import time

from google.protobuf import text_format

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.neuron.chat.stream import ReasoningPiece, TextPiece
from services.neuron.chat.template import ChatTemplate
from services.neuron.chat.tool_calls import formats
from tests.doubles.vocabulary import CHATML
from tests.system.fuzz.mutation import mutate_message, mutated_text, smaller
from tests.system.fuzz.search import search
from tests.unit.neuron.chat.test_template import CONTROL, NO_SYSTEM, STRICT
from tests.unit.neuron.chat.tool_calls.reading import TOOLS
from tests.unit.neuron.chat.tool_calls.test_cut import WRITTEN

GOLDEN = pathlib.Path(__file__).parents[2] / "contract" / "golden"
WITH_TOOLS = (
    "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content is defined %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% for call in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
)
TEMPLATES = [
    ChatTemplate(source, control_tokens=CONTROL, variables={}, shows_tools=source is WITH_TOOLS)
    for source in (CHATML, STRICT, NO_SYSTEM, WITH_TOOLS)
]
CHATS = [
    text_format.Parse(text, generation.GenerateRequest()).chat
    for file in sorted(GOLDEN.glob("*/*.textproto"))
    for text in file.read_text().split("---\n")
]
OUTPUTS = [*WRITTEN.values(), "<think>why</think>Hello", "plain {text} [1, 2]"]
TEXTS = (*OUTPUTS, "<|im_end|>", "now", '{"type": "object"}', '{"a": [' * 400)
SLOW_SECONDS = 2.0


def make(random):
    """(0, index of a template, a chat's bytes) or (1, a format's name, its output, a cut)."""
    if random.random() < 0.3:
        chat = type(CHATS[0])()
        chat.CopyFrom(random.choice(CHATS))
        for _ in range(random.choice((1, 2, 5))):
            mutate_message(random, chat, TEXTS)
        return 0, random.randrange(len(TEMPLATES)), chat.SerializeToString()
    name = random.choice(list(WRITTEN))
    output = mutated_text(random, WRITTEN[name], OUTPUTS)
    return 1, name, output, random.choice((1, 2, 7)), random.random() < 0.3


def simpler(made):
    if made[0] == 1:
        return ((*made[:2], less, *made[3:]) for less in smaller(made[2]))
    return ()


def read(name, chunks, is_cut):
    """Text, reasoning and calls of an output; a call is [id, name, arguments, incomplete]."""
    numbers = itertools.count()
    parser = formats.tool_parser(name, TOOLS, lambda: f"call_{next(numbers)}")
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)]
    text, reasoning, calls = "", "", {}
    for piece in [*pieces, *parser.finish(is_cut=is_cut)]:
        if isinstance(piece, TextPiece):
            text += piece.text
        elif isinstance(piece, ReasoningPiece):
            reasoning += piece.text
        else:
            call = calls.setdefault(piece.index, ["", "", "", False])
            call[0] += piece.call_id
            call[1] += piece.name
            call[2] += piece.arguments_json
            call[3] |= piece.incomplete
    return text, reasoning, calls


def problem(made):
    started = time.monotonic()
    try:
        words = _rendered(*made[1:]) if made[0] == 0 else _parsed(*made[1:])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        frame = error.__traceback__
        while frame.tb_next is not None:
            frame = frame.tb_next
        where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
        return f"{made[1]}: {type(error).__name__} at {where}"
    if time.monotonic() - started > SLOW_SECONDS:
        return f"{made[1]}: slower than {SLOW_SECONDS} s"
    return words


def _rendered(index, data):
    try:
        rendered = TEMPLATES[index].render(type(CHATS[0]).FromString(data), {})
    except FleetError as error:
        return "INTERNAL" if error.reason == "INTERNAL" else ""
    "".join(segment.text for segment in rendered.prompt.segments).encode()
    return ""


def _parsed(name, output, step, is_cut):
    whole = read(name, [output], is_cut)
    chunks = [output[start : start + step] for start in range(0, len(output), step)]
    if whole != read(name, chunks, is_cut):
        return f"{name}: otherwise in pieces"
    for _, _, arguments, is_incomplete in whole[2].values():
        try:
            json.loads(arguments)
        except ValueError:
            if not is_incomplete:
                return f"{name}: arguments are no JSON"
    return ""


def test_no_chat_and_no_output_is_too_odd():
    search(make, problem, simpler)
