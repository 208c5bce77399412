"""The process that renders. It holds one model's templates, and nothing else that matters."""

from __future__ import annotations

import argparse
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError
from services.backplane.process.parent_death import die_with_parent
from services.backplane.tracebacks import write_unforeseen
from services.neuron.chat.json_values import well_formed
from services.neuron.chat.template import ChatTemplate, TemplateOverrunError
from services.neuron.engine_api.events import trace
from services.neuron.engine_api.frames import HEADER, MAX_FRAME_BYTES, pack
from services.neuron.rendering.checking import check
from services.neuron.rendering.frames import (
    QUESTIONS,
    Answer,
    Broken,
    CheckConstraint,
    Done,
    Overrun,
    Ping,
    Prepare,
    Question,
    Render,
    RenderedChat,
    RenderingFailed,
    TemplateSource,
)


def main() -> None:
    """Answers until the daemon closes the socket or kills it."""
    parser = argparse.ArgumentParser(prog="services.neuron.rendering")
    parser.add_argument("--fd", required=True, type=int)
    parser.add_argument("--memory-bytes", required=True, type=int)
    arguments = parser.parse_args()
    die_with_parent(signal.SIGKILL)
    write_unforeseen()
    # Only the daemon decides when it ends; the terminal's Ctrl-C goes to the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":  # others refuse it
        resource.setrlimit(resource.RLIMIT_AS, (arguments.memory_bytes, arguments.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    templates = _Templates()
    with socket.socket(fileno=arguments.fd) as daemon:
        for question in _questions(daemon):
            daemon.sendall(_answered(templates, question))


class _Templates:
    """Those of the model, once they are compiled."""

    def __init__(self) -> None:
        self._compiled: Sequence[ChatTemplate] = ()

    def answer(self, question: Question) -> Answer:
        match question:
            case Ping():
                return Done()
            case CheckConstraint():
                check(question)
                return Done()
            case Prepare(templates=sources):
                self._compiled = [_compiled(each) for each in sources]
                return Done()
            case Render():
                chat = conversation.Chat.FromString(question.chat)
                template = self._compiled[question.template]
                return RenderedChat(template.render(chat, question.variables))


def _answered(templates: _Templates, question: Question) -> bytes:
    """The answer to a question, packed, whatever goes wrong."""
    try:
        body = pack(templates.answer(question))
    except FleetError as error:
        return pack(RenderingFailed(error.reason.value, well_formed(error.message), error.field))
    except (MemoryError, TemplateOverrunError):
        return pack(Overrun())
    except Exception as error:  # noqa: BLE001 - the daemon logs it
        return pack(Broken(trace(error)))
    return body if len(body) <= MAX_FRAME_BYTES else pack(Overrun())


def _questions(daemon: socket.socket) -> Iterator[Question]:
    with daemon.makefile("rb") as stream:
        while len(header := stream.read(HEADER.size)) == HEADER.size:
            yield QUESTIONS.decode(stream.read(HEADER.unpack(header)[0]))


def _compiled(given: TemplateSource) -> ChatTemplate:
    return ChatTemplate(
        given.source,
        control_tokens=given.control_tokens,
        variables=given.variables,
        shows_tools=given.shows_tools,
    )


if __name__ == "__main__":
    main()
