"""Seeded agents: conversations that grow by a tool's result a turn, and begin alike."""

from __future__ import annotations

import dataclasses
import random

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation

BYTES_PER_TOKEN = 4
# What an agent's program sends before every conversation: its system prompt and its tools.
_PROGRAMS = ((6_000, 12), (9_000, 10), (3_000, 6))
_ALPHABET = "etaoinshrdlu "


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One request of an agent.

    Attributes:
        request: canonical, as a dialect's decoder would make it.
        segments: names and tokens of its pieces, in the order in which a model reads them.
        answer_tokens: how long the answer is.
        think_seconds: from the answer to the agent's next request.
    """

    request: generation.GenerateRequest
    segments: tuple[tuple[int, int], ...]
    answer_tokens: int
    think_seconds: float


class Agent:
    """One program that works on one task after another, each a conversation of its own."""

    def __init__(self, number: int, seed: int) -> None:
        self._dice = random.Random(f"{seed}/{number}")
        self._program = number % len(_PROGRAMS)
        self._principal = f"agent-{number % 5}"
        self._turns_left = 0
        self._chat = conversation.Chat()
        self._segments: list[tuple[int, int]] = []

    def next_turn(self) -> Turn:
        """The next request; the answer to the last one is part of it."""
        if self._turns_left == 0:
            self._begin()
        self._turns_left -= 1
        answer_tokens = int(self._dice.expovariate(1 / 150)) + 20
        request = generation.GenerateRequest(principal=self._principal, chat=self._chat)
        turn = Turn(request, tuple(self._segments), answer_tokens, self._dice.expovariate(1 / 3))
        self._say(conversation.ROLE_ASSISTANT, answer_tokens)
        self._say(conversation.ROLE_TOOL, int(self._dice.paretovariate(1.3) * 200) % 6_000)
        return turn

    def _begin(self) -> None:
        self._turns_left = self._dice.randint(6, 40)
        self._chat = conversation.Chat()
        self._segments = []
        system_tokens, tools = _PROGRAMS[self._program]
        shared = random.Random(self._program)
        for number in range(tools):
            text = _text(shared, 300)
            self._chat.tools.add(name=f"tool_{number}", description=text)
        # Tools and system prompt are one piece: programs never send one without the other.
        self._add(conversation.ROLE_SYSTEM, _text(shared, system_tokens), tools * 300)
        self._say(conversation.ROLE_USER, self._dice.randint(50, 1_500))

    def _say(self, role: conversation.Role.ValueType, tokens: int) -> None:
        self._add(role, _text(self._dice, tokens), 0)

    def _add(self, role: conversation.Role.ValueType, text: str, further_tokens: int) -> None:
        self._chat.messages.add(role=role).parts.add(text=text)
        before = self._segments[-1][0] if self._segments else 0
        tokens = len(text) // BYTES_PER_TOKEN + further_tokens
        self._segments.append((hash((before, self._principal, text)), tokens))


def _text(dice: random.Random, tokens: int) -> str:
    """Text that nobody else has, as long as so many tokens."""
    head = "".join(dice.choices(_ALPHABET, k=16))
    return (head * (tokens * BYTES_PER_TOKEN // 16 + 1))[: tokens * BYTES_PER_TOKEN]
