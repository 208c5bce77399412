"""Many clients that ask one question after the other until they are told to stop."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bench.traffic.clients import Question, SdkClients
from bench.traffic.exchange import Exchange, Seen
from tests.system.fleet import models

# One for each neuron.
MODELS: Final = ("alpha", "bravo")


def question(model: str, tokens: int, turns: Sequence[dict[str, str]] = ()) -> Question:
    """One whose answer is known."""
    given = turns or ({"role": "user", "content": "Go"},)
    return Question(model, given, models.answer(model, tokens), tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How a client asks.

    Attributes:
        tokens: of an answer, least and most.
        pause_seconds: between an answer and the next question, at most.
        turns: of a conversation before the next one begins; each asks with all that was said.
        files: words of what an agent has read, in the first turn, at most.
    """

    tokens: tuple[int, int] = (20, 600)
    pause_seconds: float = 0.5
    turns: int = 4
    files: int = 200


class Load:
    """Clients of all kinds, each with conversations of its own.

    Attributes:
        seen: what they got, in the order of asking.
    """

    def __init__(self, clients: SdkClients, habits: Habits, *, seed: int = 1) -> None:
        self.seen = Seen()
        self._clients = clients
        self._habits = habits
        self._seed = seed
        self._is_over = False

    @asynccontextmanager
    async def asking(self, count: int) -> AsyncGenerator[None]:
        """So many clients ask while the context is open; their last answers are waited for."""
        self._is_over = False
        kinds = itertools.cycle(self._clients.kinds)
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(self._live(number, next(kinds)))
            yield  # who raises here cancels them
            self._is_over = True

    async def load_models(self) -> None:
        """Has each model say a little, so that it is loaded; counted with the others."""
        for model in MODELS:
            await self.ask("OpenAI, whole", question(model, 3))

    async def ask(self, kind: str, asked: Question) -> Exchange:
        """One question beside the others, counted with theirs."""
        exchange = Exchange(kind, asked.expected, time.monotonic())
        self.seen.exchanges.append(exchange)
        await self._clients.ask(kind, asked, exchange)
        return exchange

    async def _live(self, number: int, kind: str) -> None:
        chance = random.Random(f"{self._seed} {number}")
        for asked in self._conversations(chance):
            if self._is_over:
                return
            await self.ask(kind, asked)
            await asyncio.sleep(chance.uniform(0, self._habits.pause_seconds))

    def _conversations(self, chance: random.Random) -> Iterator[Question]:
        while True:
            model = chance.choice(MODELS)
            read = " ".join(chance.choices(_FILE_WORDS, k=chance.randint(1, self._habits.files)))
            turns = [{"role": "user", "content": f"{read} Go"}]
            for _ in range(self._habits.turns):
                asked = question(model, chance.randint(*self._habits.tokens), tuple(turns))
                yield asked
                turns += [
                    {"role": "assistant", "content": asked.expected[:400]},
                    {"role": "user", "content": "Go on"},
                ]


_FILE_WORDS: Final = ("def", "return", "self", "import", "class", "None", "for", "in", "the", "of")
