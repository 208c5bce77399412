"""Nothing that one principal sends changes what is foretold of another's prompts."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.routing import foretell
from services.gateway.routing.candidates import Availability, InstanceCandidate, Replicas
from services.gateway.routing.choose import choose
from services.gateway.routing.holdings import Holdings
from services.gateway.routing.homes import Homes
from services.gateway.routing.prefix import trail_of

NAMES = "abc"
# Few, so that both principals say the same things in the same order again and again.
TEXTS = ("read the file", "now run it", "thank you")
ROLES = (conversation.ROLE_USER, conversation.ROLE_ASSISTANT, conversation.ROLE_TOOL)


@dataclasses.dataclass(frozen=True)
class Turn:
    """A request that was sent somewhere, and what came of it there.

    Attributes:
        texts: of its messages.
        place: where it was sent.
        is_told: the neuron has told that it holds the prompt and its head.
        is_dropped: and that it does not any more.
        found: tokens of it that the engine found in its cache.
    """

    texts: tuple[str, ...]
    has_head: bool
    place: int
    is_told: bool
    is_dropped: bool
    found: int


turns = st.builds(
    Turn,
    texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4).map(tuple),
    has_head=st.booleans(),
    place=st.integers(0, len(NAMES) - 1),
    is_told=st.booleans(),
    is_dropped=st.booleans(),
    found=st.integers(0, 100),
)


def request_of(principal: str, turn: Turn) -> generation.GenerateRequest:
    made = generation.GenerateRequest(principal=principal)
    if turn.has_head:
        made.chat.messages.add(role=conversation.ROLE_SYSTEM).parts.add(text="be brief")
    for number, text in enumerate(turn.texts):
        made.chat.messages.add(role=ROLES[number % len(ROLES)]).parts.add(text=text)
    return made


class Gateway:
    """What one gateway knows, of requests that have all ended."""

    def __init__(self) -> None:
        self.homes = Homes()
        self.holdings = Holdings(self.homes.forget)
        candidates = [
            InstanceCandidate(name, "m", "n", "h:1", Availability.SERVING) for name in NAMES
        ]
        self.replicas = Replicas("m", candidates, {})

    def send(self, principal: str, turn: Turn) -> None:
        trail, name = trail_of(request_of(principal, turn), "m"), NAMES[turn.place]
        self.homes.settle(trail, self.homes.find(trail, self.holdings.told), name)
        self.holdings.learn(
            trail.whose,
            size_bytes=trail.size_bytes,
            tokens=100,
            foretold=self.holdings.foretold(trail, name),
            found=turn.found,
        )
        digests = [digest for digest in (trail.head, trail.turns[-1]) if digest]
        if turn.is_told:
            held = [neuron.HeldPrefix(digest=digest, tokens=100) for digest in digests]
            self.holdings.apply(neuron.CacheChange(instance_id=name, held=held))
        if turn.is_dropped:
            self.holdings.apply(neuron.CacheChange(instance_id=name, dropped=digests))

    def foretold(self, principal: str, turn: Turn) -> object:
        """All that is foretold of a prompt, and where it would go if that alone decides."""
        trail = trail_of(request_of(principal, turn), "m")
        found = self.homes.find(trail, self.holdings.told)
        costs = foretell.costs(self.replicas, trail, found, self.holdings)
        tokens = [self.holdings.foretold(trail, name) for name in NAMES]
        chosen: object = None
        if found[2] and costs.count(min(costs)) == 1:
            chosen = choose(
                self.replicas, self.homes, holdings=self.holdings, trail=lambda _: trail
            )
        return found, costs, tokens, chosen


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), turns), max_size=12), turns)
def test_what_others_send_changes_nothing(sent: list[tuple[bool, Turn]], asked: Turn) -> None:
    alone, shared = Gateway(), Gateway()
    for is_own, turn in sent:
        if is_own:
            alone.send("A", turn)
            shared.send("A", turn)
        else:
            shared.send("B", turn)

    assert shared.foretold("A", asked) == alone.foretold("A", asked)


@given(turns)
def test_what_one_has_sent_oneself_is_foretold(turn: Turn) -> None:
    gateway = Gateway()
    gateway.send("A", dataclasses.replace(turn, is_dropped=False))

    trail = trail_of(request_of("A", turn), "m")
    assert gateway.homes.find(trail, {})[0] == NAMES[turn.place]
    assert gateway.homes.find(trail_of(request_of("B", turn), "m"), {})[0] is None
