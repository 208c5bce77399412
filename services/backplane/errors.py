"""Every way in which a request can fail, in one table.

A `Reason` is the stable, machine-readable name of a failure. Its row says which gRPC code and HTTP
status carry it, whether another instance may do better, and how the OpenAI and Anthropic dialects
call it. `FleetError` is the one exception that domain code raises; `status.py` carries it over gRPC
and the gateway's dialects put it into their envelopes.

Sources: google.rpc.Code; the error pages of the OpenAI and Anthropic API references.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

import grpc

from services.backplane.excerpt import excerpt

# Messages, fields and facts quote what callers sent, and go into answers, logs and the trailers of
# a call: these carry a message thrice and percent-encoded once, and beyond 8 KiB gRPC drops them
# all. In bytes of UTF-8.
_MOST_MESSAGE_BYTES: Final = 1_000
_MOST_FACT_BYTES: Final = 200


class Retry(enum.Enum):
    """What the gateway may do before the first delta has reached the client."""

    NEVER = "never"
    ELSEWHERE = "elsewhere"
    """Another instance may serve it; this one will not."""
    LATER = "later"
    """The same place may serve it after `retry_after_seconds`."""


class Row(NamedTuple):
    """What one reason is to gRPC, HTTP, retries, OpenAI's API and Anthropic's."""

    grpc: grpc.StatusCode
    http: int
    retry: Retry
    openai_type: str
    openai_code: str | None
    anthropic_type: str


_BAD = "invalid_request_error"
_C = grpc.StatusCode
_N, _E, _L = Retry.NEVER, Retry.ELSEWHERE, Retry.LATER


class Reason(enum.Enum):
    """Why a request failed."""

    # The request itself.
    BAD_REQUEST = "BAD_REQUEST"
    UNSUPPORTED_FIELD = "UNSUPPORTED_FIELD"
    BAD_CONSTRAINT = "BAD_CONSTRAINT"
    CONTEXT_TOO_LONG = "CONTEXT_TOO_LONG"
    NEVER_FITS = "NEVER_FITS"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    BODY_TOO_SLOW = "BODY_TOO_SLOW"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    TEMPLATE_FAILED = "TEMPLATE_FAILED"
    WRONG_MODALITY = "WRONG_MODALITY"
    MODEL_UNKNOWN = "MODEL_UNKNOWN"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    # The instance that was asked.
    INSTANCE_GONE = "INSTANCE_GONE"
    INSTANCE_DRAINING = "INSTANCE_DRAINING"
    INSTANCE_MISMATCH = "INSTANCE_MISMATCH"
    INSTANCE_RECOVERING = "INSTANCE_RECOVERING"
    # Room and turns.
    QUEUE_FULL = "QUEUE_FULL"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    RATE_LIMITED = "RATE_LIMITED"
    QUOTA_EXHAUSTED = "QUOTA_EXHAUSTED"
    NO_ROOM = "NO_ROOM"
    SLOW_READER = "SLOW_READER"
    # Loading.
    LOAD_FAILED = "LOAD_FAILED"
    MODEL_FILE_BAD = "MODEL_FILE_BAD"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    SOURCE_UNAVAILABLE = "SOURCE_UNAVAILABLE"
    SOURCE_FORBIDDEN = "SOURCE_FORBIDDEN"
    # The fleet.
    ENGINE_FAILED = "ENGINE_FAILED"
    WORKER_LOST = "WORKER_LOST"
    NEURON_LOST = "NEURON_LOST"
    NO_NEURONS = "NO_NEURONS"
    REGISTRY_UNAVAILABLE = "REGISTRY_UNAVAILABLE"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    NOT_LEADER = "NOT_LEADER"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    DEADLINE = "DEADLINE"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"

    @property
    def row(self) -> Row:
        """The reason's line in the table."""
        return TABLE[self]


TABLE: Mapping[Reason, Row] = {
    Reason.BAD_REQUEST: Row(_C.INVALID_ARGUMENT, 400, _N, _BAD, None, _BAD),
    Reason.UNSUPPORTED_FIELD: Row(
        _C.INVALID_ARGUMENT, 400, _N, _BAD, "unsupported_parameter", _BAD
    ),
    Reason.BAD_CONSTRAINT: Row(_C.INVALID_ARGUMENT, 400, _N, _BAD, "invalid_json_schema", _BAD),
    Reason.CONTEXT_TOO_LONG: Row(
        _C.INVALID_ARGUMENT, 400, _N, _BAD, "context_length_exceeded", _BAD
    ),
    Reason.NEVER_FITS: Row(
        _C.INVALID_ARGUMENT, 413, _N, _BAD, "request_too_large", "request_too_large"
    ),
    Reason.BODY_TOO_LARGE: Row(
        _C.INVALID_ARGUMENT, 413, _N, _BAD, "request_too_large", "request_too_large"
    ),
    Reason.BODY_TOO_SLOW: Row(_C.DEADLINE_EXCEEDED, 408, _N, _BAD, "request_timeout", _BAD),
    Reason.UNSUPPORTED_MEDIA_TYPE: Row(
        _C.INVALID_ARGUMENT, 415, _N, _BAD, "unsupported_media_type", _BAD
    ),
    Reason.TEMPLATE_FAILED: Row(
        _C.INVALID_ARGUMENT, 422, _N, _BAD, "template_render_failed", _BAD
    ),
    Reason.WRONG_MODALITY: Row(_C.INVALID_ARGUMENT, 400, _N, _BAD, "wrong_modality", _BAD),
    Reason.MODEL_UNKNOWN: Row(_C.NOT_FOUND, 404, _N, _BAD, "model_not_found", "not_found_error"),
    Reason.NOT_FOUND: Row(_C.NOT_FOUND, 404, _N, _BAD, "not_found", "not_found_error"),
    Reason.METHOD_NOT_ALLOWED: Row(
        _C.UNIMPLEMENTED, 405, _N, _BAD, "method_not_allowed", _BAD
    ),
    Reason.UNAUTHENTICATED: Row(
        _C.UNAUTHENTICATED, 401, _N, _BAD, "invalid_api_key", "authentication_error"
    ),
    Reason.FORBIDDEN: Row(
        _C.PERMISSION_DENIED, 403, _N, _BAD, "permission_denied", "permission_error"
    ),
    Reason.NOT_SUPPORTED: Row(_C.UNIMPLEMENTED, 501, _N, _BAD, "not_supported", _BAD),
    Reason.INSTANCE_GONE: Row(
        _C.FAILED_PRECONDITION, 503, _E, "server_error", "instance_gone", "overloaded_error"
    ),
    Reason.INSTANCE_DRAINING: Row(
        _C.FAILED_PRECONDITION, 503, _E, "server_error", "instance_draining", "overloaded_error"
    ),
    Reason.INSTANCE_MISMATCH: Row(
        _C.FAILED_PRECONDITION, 503, _E, "server_error", "instance_mismatch", "overloaded_error"
    ),
    Reason.INSTANCE_RECOVERING: Row(
        _C.UNAVAILABLE, 503, _E, "server_error", "model_recovering", "overloaded_error"
    ),
    Reason.QUEUE_FULL: Row(
        _C.RESOURCE_EXHAUSTED, 429, _E, "rate_limit_error", "queue_full", "rate_limit_error"
    ),
    Reason.QUEUE_TIMEOUT: Row(
        _C.RESOURCE_EXHAUSTED, 503, _E, "server_error", "queue_timeout", "overloaded_error"
    ),
    Reason.RATE_LIMITED: Row(
        _C.RESOURCE_EXHAUSTED, 429, _N, "rate_limit_error", "rate_limit_exceeded",
        "rate_limit_error",
    ),
    Reason.QUOTA_EXHAUSTED: Row(
        _C.RESOURCE_EXHAUSTED, 429, _N, "insufficient_quota", "insufficient_quota",
        "rate_limit_error",
    ),
    Reason.NO_ROOM: Row(
        _C.RESOURCE_EXHAUSTED, 503, _L, "server_error", "no_room", "overloaded_error"
    ),
    Reason.SLOW_READER: Row(
        _C.RESOURCE_EXHAUSTED, 429, _N, "rate_limit_error", "slow_reader", "rate_limit_error"
    ),
    Reason.LOAD_FAILED: Row(
        _C.ABORTED, 502, _E, "server_error", "load_failed", "api_error"
    ),
    Reason.MODEL_FILE_BAD: Row(
        _C.FAILED_PRECONDITION, 502, _N, "server_error", "model_file_bad", "api_error"
    ),
    Reason.OUT_OF_MEMORY: Row(
        _C.RESOURCE_EXHAUSTED, 503, _E, "server_error", "out_of_memory", "overloaded_error"
    ),
    Reason.SOURCE_UNAVAILABLE: Row(
        _C.UNAVAILABLE, 502, _E, "server_error", "source_unavailable", "api_error"
    ),
    Reason.SOURCE_FORBIDDEN: Row(
        _C.PERMISSION_DENIED, 502, _E, "server_error", "source_forbidden", "api_error"
    ),
    Reason.ENGINE_FAILED: Row(
        _C.INTERNAL, 500, _E, "server_error", "engine_failed", "api_error"
    ),
    Reason.WORKER_LOST: Row(
        _C.UNAVAILABLE, 503, _E, "server_error", "worker_lost", "overloaded_error"
    ),
    Reason.NEURON_LOST: Row(
        _C.UNAVAILABLE, 503, _E, "server_error", "neuron_lost", "overloaded_error"
    ),
    Reason.NO_NEURONS: Row(
        _C.UNAVAILABLE, 503, _L, "server_error", "no_neurons", "overloaded_error"
    ),
    Reason.REGISTRY_UNAVAILABLE: Row(
        _C.UNAVAILABLE, 503, _L, "server_error", "registry_unavailable", "overloaded_error"
    ),
    Reason.UPSTREAM_FAILED: Row(
        _C.UNAVAILABLE, 502, _E, "server_error", "upstream_failed", "api_error"
    ),
    Reason.NOT_LEADER: Row(
        _C.FAILED_PRECONDITION, 503, _E, "server_error", "not_leader", "overloaded_error"
    ),
    Reason.SHUTTING_DOWN: Row(
        _C.UNAVAILABLE, 503, _E, "server_error", "shutting_down", "overloaded_error"
    ),
    Reason.DEADLINE: Row(
        _C.DEADLINE_EXCEEDED, 504, _N, "server_error", "timeout", "timeout_error"
    ),
    Reason.CANCELLED: Row(_C.CANCELLED, 499, _N, "server_error", "cancelled", "api_error"),
    Reason.INTERNAL: Row(_C.INTERNAL, 500, _N, "server_error", "internal_error", "api_error"),
}  # fmt: skip


@dataclasses.dataclass(eq=False)
class FleetError(Exception):
    """A request failed for a reason that is in the table.

    Texts that are too long, because of what they quote, lose their middle.

    Attributes:
        reason: the row.
        message: one sentence for people; names the field or the thing, never a stack.
        field: the input field at fault, as the caller spelled it (`messages.0.content`), or None.
        retry_after_seconds: when it is worth trying again, or None where that is not known.
        facts: more for machines, strings only: numbers of tokens, names, limits.
    """

    reason: Reason
    message: str
    field: str | None = None
    retry_after_seconds: float | None = None
    facts: dict[str, str] = dataclasses.field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        self.message = excerpt(self.message, _MOST_MESSAGE_BYTES)
        if self.field is not None:
            self.field = excerpt(self.field, _MOST_FACT_BYTES)
        self.facts = {key: excerpt(value, _MOST_FACT_BYTES) for key, value in self.facts.items()}

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.message}"

    def anew(self) -> FleetError:
        """A copy, to be raised in place of an error that is kept and raised again and again.

        An exception collects the stack frames of each `raise`: raised itself, the kept one would
        hold the memory of every request that it has ended.
        """
        return dataclasses.replace(self)

    def without_frames(self) -> FleetError:
        """Drops its traceback and its causes, so that keeping it holds no request's memory.

        A frame that has the error among its variables would otherwise be kept by the error too: a
        circle that only the garbage collector ends, perhaps minutes later.

        Returns: itself.
        """
        error: BaseException | None = self
        while error is not None:
            behind = error.__cause__ or error.__context__
            error.__traceback__ = error.__cause__ = error.__context__ = None
            error = behind
        return self


def context_too_long(
    *, prompt_tokens: int, max_tokens: int, is_minimum: bool = False
) -> FleetError:
    """A prompt that the model's context cannot hold, with both numbers for the dialects to word.

    Args:
        prompt_tokens: of the prompt.
        max_tokens: that the context holds.
        is_minimum: the prompt has more: counting ended where it was certain not to fit. The fact
            stays a plain number, because clients parse the sentence that it is worded into.
    """
    facts = {"prompt_tokens": str(prompt_tokens), "max_context_tokens": str(max_tokens)}
    if is_minimum:
        facts["prompt_tokens_is_minimum"] = "true"
    measured = f"at least {prompt_tokens}" if is_minimum else f"{prompt_tokens}"
    return FleetError(
        Reason.CONTEXT_TOO_LONG,
        f"The prompt has {measured} tokens; the model's context holds {max_tokens}.",
        facts=facts,
    )
