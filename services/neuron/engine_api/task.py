"""One generation as an engine sees it: prompt, sampling, stop rules, constraint."""

from __future__ import annotations

import enum
import hashlib

import msgspec


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all values that daemon and worker send each other: immutable, packed by msgpack."""


class WorkClass(enum.IntEnum):
    """How patient the caller is; the lower goes first."""

    INTERACTIVE = 0
    DEFAULT = 1
    BATCH = 2


class Segment(Value, frozen=True, array_like=True):
    """A run of prompt text.

    Attributes:
        text: the text.
        control: True for a control token written by the chat template (`<|im_start|>`); False for
            text in which control tokens are not recognised, whatever it says.
    """

    text: str
    control: bool = False


class Prompt(Value, frozen=True):
    """A prompt in one of two forms: segments to tokenise, or token ids as they are.

    Attributes:
        segments: joined in order; plain runs that touch are tokenised as one.
        token_ids: used instead where not None.
        add_bos: prepend the model's BOS token where the model wants one and the text lacks it.
    """

    segments: tuple[Segment, ...] = ()
    token_ids: tuple[int, ...] | None = None
    add_bos: bool = False


class SamplingParams(Value, frozen=True):
    """Sampling with every default settled; meanings as in cortex.v1.Sampling.

    Attributes:
        temperature: 0 is greedy.
        top_k: 0 is off.
        top_p: 1 is off.
        min_p: 0 is off.
        typical_p: 1 is off.
        repetition_penalty: over prompt and output; 1 is off.
        frequency_penalty: over the output; 0 is off.
        presence_penalty: over the output; 0 is off.
        seed: None draws one.
        logit_bias: token id to what is added to its logit; -100 and below bans it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logit_bias: dict[int, float] = {}


class StopParams(Value, frozen=True):
    """When a generation ends; meanings as in cortex.v1.StopRules."""

    max_tokens: int | None = None
    strings: tuple[str, ...] = ()
    token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    include_stop_string: bool = False


class ConstraintKind(enum.Enum):
    """The language that a constraint is written in."""

    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"


class Constraint(Value, frozen=True):
    """A shape that the output must take, enforced by llguidance from the first token on."""

    kind: ConstraintKind
    text: str = ""

    @property
    def digest(self) -> bytes:
        """16 bytes of BLAKE2b over kind and text, by which equal constraints are found again."""
        told = f"{self.kind.value}:{self.text}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(told, digest_size=16).digest()


class PromptMarks(Value, frozen=True):
    """Names for beginnings of a prompt, by which the engine tells that it holds them.

    Attributes:
        head: of what comes before the first user turn; empty: nothing.
        head_controls: it ends before the control token of this number, counted from 1 in the
            prompt's segments; 0: it is not known where it ends.
        whole: of the whole prompt.
    """

    head: bytes = b""
    head_controls: int = 0
    whole: bytes = b""


class Task(Value, frozen=True):
    """One generation as an engine sees it.

    Attributes:
        task_id: chosen by the daemon, unique for the life of the worker.
        instance_id: which loaded model.
        prompt: what to continue.
        sampling: fully settled.
        stop: stop rules; EOS tokens of the model are always among them unless `ignore_eos`.
        constraint: None for free text.
        top_logprobs: None for no logprobs; 0 for the chosen token's alone.
        echo_prompt_logprobs: report the prompt's own logprobs first.
        resume_token_ids: output made before, to go on behind; not sent again.
        tells_resumed: `Started` has the text of each of them, for a daemon that did not see it.
        principal: who asks, for fairness.
        work_class: who goes first in the queue.
        credit_tokens: tokens that may be sent before more credit comes; None is no limit.
        images: encoded pictures, one for each image marker of the prompt.
        max_context_tokens: longest prompt plus completion that it may have; None is the model's.
        marks: names for its beginnings; None: nothing is told of it.
    """

    task_id: int
    instance_id: str
    prompt: Prompt
    sampling: SamplingParams = SamplingParams()
    stop: StopParams = StopParams()
    constraint: Constraint | None = None
    top_logprobs: int | None = None
    echo_prompt_logprobs: bool = False
    resume_token_ids: tuple[int, ...] = ()
    tells_resumed: bool = False
    principal: str = ""
    work_class: WorkClass = WorkClass.DEFAULT
    credit_tokens: int | None = None
    images: tuple[bytes, ...] = ()
    max_context_tokens: int | None = None
    marks: PromptMarks | None = None
