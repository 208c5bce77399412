"""Which tool-call format a model speaks: by the load's wish, else by its chat template. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.json_values import loads
from services.neuron.chat.stream import ChatParser
from services.neuron.chat.tool_calls.families import (
    deepseek,
    gemma,
    generic,
    glm,
    glm4,
    harmony,
    hermes,
    invoke_xml,
    kimi,
    lfm2,
    llama3,
    mistral,
    pythonic,
    qwen_xml,
    tagged_json,
)
from services.neuron.chat.tool_calls.parsing.calls import Calls, Tools

Factory = Callable[[Calls, Tools], ChatParser]

# Order matters where templates share a marker: the more particular format comes first.
_FORMATS: Final[Mapping[str, tuple[Callable[[str], bool], Factory]]] = {
    harmony.NAME: (harmony.detects, harmony.parser),
    invoke_xml.DSML: (invoke_xml.detects_dsml, invoke_xml.dsml_parser),
    deepseek.NAME: (deepseek.detects, deepseek.parser),
    kimi.NAME: (kimi.detects, kimi.parser),
    invoke_xml.MINIMAX: (invoke_xml.detects_minimax, invoke_xml.minimax_parser),
    qwen_xml.SEED: (qwen_xml.detects_seed, qwen_xml.seed_parser),
    qwen_xml.NAME: (qwen_xml.detects, qwen_xml.parser),
    glm.NAME: (glm.detects, glm.parser),
    glm4.NAME: (glm4.detects, glm4.parser),
    gemma.NAME: (gemma.detects, gemma.parser),
    **{name: (each.detects, each.parser) for name, each in tagged_json.FAMILIES.items()},
    hermes.NAME: (hermes.detects, hermes.parser),
    mistral.NAME: (mistral.detects, mistral.parser),
    lfm2.NAME: (lfm2.detects, lfm2.parser),
    pythonic.NAME: (pythonic.detects, pythonic.parser),
    llama3.NAME: (llama3.detects, llama3.parser),
}
GENERIC: Final = "generic"
# Those whose calls are JSON objects of a name and arguments, each between these two markers.
JSON_CALLS: Final[Mapping[str, tuple[str, str]]] = dict.fromkeys(
    (hermes.NAME, GENERIC), (hermes.OPENING, hermes.CLOSING)
)
# Their answers stand between markers too, whether or not there are tools.
ALWAYS_READ: Final = frozenset({harmony.NAME, tagged_json.COHERE})
# A template that never reads this shows no tools, whatever it knows of calls.
_TOOLS: Final = re.compile(r"\btools\b")


def tool_format(wanted: str, template: str) -> str:
    """The name of a model's format; `generic` where its template shows no tools.

    Args:
        wanted: as in cortex.v1.LoadSpec.tool_format; empty for the template's own.
        template: source of the model's chat template.

    Raises:
        FleetError: BAD_REQUEST, there is no such format.
    """
    if wanted and wanted not in _FORMATS and wanted != GENERIC:
        known = ", ".join([*_FORMATS, GENERIC])
        raise FleetError(
            Reason.BAD_REQUEST,
            f"No tool format {wanted!r} (known: {known}).",
            field="spec.tool_format",
        )
    if wanted:
        return wanted
    for name, (detects, _) in _FORMATS.items():
        if _TOOLS.search(template) and detects(template):
            return name
    return GENERIC


def tool_parser(name: str, tools: Tools, new_id: Callable[[], str]) -> ChatParser:
    """A parser of one output in a format."""
    factory = generic.parser if name == GENERIC else _FORMATS[name][1]
    return factory(Calls(new_id), tools)


def tools_of(chat: conversation.Chat) -> Tools:
    """The tools of a chat, as readers need them; schemas that are no objects count as empty."""
    parameters: dict[str, Mapping[str, Any]] = {}
    for tool in chat.tools:
        try:
            schema: Any = loads(tool.parameters_schema_json or "{}")
        except ValueError:
            schema = {}
        parameters[tool.name] = schema if isinstance(schema, dict) else {}
    return Tools(parameters)
