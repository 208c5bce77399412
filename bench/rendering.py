"""What the process that renders costs a chat: by the template in this process, and by the child."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Final

from prometheus_client import CollectorRegistry

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.process.faults import Faults
from services.neuron.chat.template import ChatTemplate
from services.neuron.rendering.frames import TemplateSource
from services.neuron.rendering.renderer import Renderers
from services.neuron.settings import TemplateLimits

_ROUNDS: Final = 2_000
_CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TOKENS: Final = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
_VARIABLES: Final = {"bos_token": "", "eos_token": "<|im_end|>"}
_TEXT: Final = "The quick brown fox jumps over the lazy dog. " * 8


def chat(turns: int) -> conversation.Chat:
    """A conversation of so many turns, user and assistant in turn, of 360 characters each."""
    roles = (conversation.ROLE_USER, conversation.ROLE_ASSISTANT)
    return conversation.Chat(
        messages=[
            conversation.Message(role=roles[index % 2], parts=[conversation.Part(text=_TEXT)])
            for index in range(turns)
        ]
    )


async def main() -> None:
    """Prints a line of Markdown for each length."""
    faults = Faults(CollectorRegistry(), "neuron")
    renderers = Renderers(TemplateLimits(), constraint_seconds=5.0, faults=faults)
    template = ChatTemplate(_CHATML, control_tokens=_TOKENS, variables=_VARIABLES)
    renderer = await renderers.start([TemplateSource(_CHATML, _TOKENS, _VARIABLES)], "bench")
    print("| turns | in process, µs | by the child, µs | of these in the daemon, CPU µs |")
    print("|---|---|---|---|")
    try:
        for turns in (2, 100):
            asked = chat(turns)
            here, there = [], []
            for _ in range(_ROUNDS):
                begun = time.perf_counter()
                template.render(asked, {})
                here.append(time.perf_counter() - begun)
            cpu = time.process_time()
            for _ in range(_ROUNDS):
                begun = time.perf_counter()
                await renderer.render(asked, {})
                there.append(time.perf_counter() - begun)
            cpu = (time.process_time() - cpu) / _ROUNDS
            medians = [statistics.median(each) * 1e6 for each in (here, there)]
            print(f"| {turns} | {medians[0]:.0f} | {medians[1]:.0f} | {cpu * 1e6:.0f} |")
    finally:
        await renderers.stop()


if __name__ == "__main__":
    asyncio.run(main())
