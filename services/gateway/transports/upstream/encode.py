"""A canonical request as the body of OpenAI's chat or legacy completions.

What a server has no field for is refused by the field's name, unless its value is the one at which
it does nothing. Source: OpenAI API reference, chat/create and completions/create; vLLM's and
Cortex's extra fields.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason, context_too_long
from services.gateway.transports.upstream.messages import messages_of
from services.gateway.transports.upstream.settings import UpstreamSettings

_VLLM: Final = frozenset(
    {
        "chat_template_kwargs", "continue_final_message", "ignore_eos",
        "include_stop_str_in_output", "min_p", "min_tokens", "reasoning_content",
        "repetition_penalty", "stop_token_ids", "structured_outputs", "top_k",
    }
)  # fmt: skip
_EXTRA: Final[dict[str, frozenset[str]]] = {
    "none": frozenset(),
    "vllm": _VLLM,
    "cortex": _VLLM | {"enable_thinking", "thinking_budget", "typical_p"},
}
_COPIED: Final = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed")
# Sampling fields of other servers, and the value at which each does nothing.
_NEUTRAL: Final = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "typical_p": 1.0}
_EFFORTS: Final = {
    generation.REASONING_EFFORT_MINIMAL: "minimal",
    generation.REASONING_EFFORT_LOW: "low",
    generation.REASONING_EFFORT_MEDIUM: "medium",
    generation.REASONING_EFFORT_HIGH: "high",
}


class Encoded(NamedTuple):
    """What is posted.

    Attributes:
        path: behind the server's URL.
        body: JSON.
        model: as the server calls it.
        most_tokens: of the answer; None: no bound.
        is_streamed: the answer is asked for as a stream.
    """

    path: str
    body: bytes
    model: str = ""
    most_tokens: int | None = None
    is_streamed: bool = True

    def unstreamed(self) -> Encoded:
        """The same, with the answer as one piece."""
        body = msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])
        body.pop("stream_options", None)
        body["stream"] = msgspec.Raw(b"false")
        return self._replace(body=msgspec.json.encode(body), is_streamed=False)


def encode(
    request: generation.GenerateRequest,
    upstream: UpstreamSettings,
    *,
    model: str,
    prompt_tokens: int,
) -> Encoded:
    """The request as this server reads it.

    Args:
        request: one choice.
        upstream: which fields it reads.
        model: as it calls it.
        prompt_tokens: of the prompt, estimated: by it the context of the principal is bounded.

    Raises:
        FleetError: UNSUPPORTED_FIELD with the field's name; CONTEXT_TOO_LONG.
    """
    return _Encoder(request, upstream, model).encode(prompt_tokens)


class _Encoder:
    def __init__(
        self, request: generation.GenerateRequest, upstream: UpstreamSettings, model: str
    ) -> None:
        self._request = request
        self._upstream = upstream
        self._extra = _EXTRA[upstream.extra_fields]
        self._model = model
        self._most_tokens: int | None = None
        self._body: dict[str, Any] = {"model": model, "stream": True}
        if upstream.asks_usage:
            self._body["stream_options"] = {"include_usage": True}

    def encode(self, prompt_tokens: int) -> Encoded:
        request = self._request
        if request.echo_prompt:
            raise self._unsupported("echo", "its tokens are known where the model is loaded alone")
        self._limit(prompt_tokens)
        self._sample()
        self._stop()
        if request.HasField("chat"):
            path = "/chat/completions"
            self._body["messages"] = messages_of(
                request.chat, with_reasoning="reasoning_content" in self._extra
            )
            self._chat(request.chat)
            self._reason()
        elif request.HasField("text"):
            path = "/completions"
            self._body["prompt"] = request.text
        else:
            raise self._unsupported("prompt", "token ids are of one model's vocabulary")
        self._constrain()
        if request.HasField("top_logprobs"):
            self._log_probabilities(request.top_logprobs, is_chat=request.HasField("chat"))
        return Encoded(path, msgspec.json.encode(self._body), self._model, self._most_tokens)

    def _unsupported(self, field: str, why: str) -> FleetError:
        told = f"{field}: cannot be asked of the upstream {self._upstream.name!r}: {why}."
        return FleetError(Reason.UNSUPPORTED_FIELD, told, field=field)

    def _put_extra(self, field: str, value: object) -> None:
        if field not in self._extra:
            raise self._unsupported(field, "its API has no such field")
        self._body[field] = value

    def _limit(self, prompt_tokens: int) -> None:
        """The most tokens of the answer, within the context that the principal may have."""
        stop = self._request.stop
        most = stop.max_tokens if stop.HasField("max_tokens") else None
        if self._request.HasField("max_context_tokens"):
            context = self._request.max_context_tokens
            if prompt_tokens >= context:
                raise context_too_long(prompt_tokens=prompt_tokens, max_tokens=context)
            left = context - prompt_tokens
            most = left if most is None else min(most, left)
        self._most_tokens = most
        if most is not None:
            chat = self._request.HasField("chat")
            self._body[self._upstream.max_tokens_field if chat else "max_tokens"] = most

    def _sample(self) -> None:
        sampling: Any = self._request.sampling
        for name in _COPIED:
            if sampling.HasField(name):
                self._body[name] = getattr(sampling, name)
        for name, neutral in _NEUTRAL.items():
            if sampling.HasField(name) and (
                name in self._extra or getattr(sampling, name) != neutral
            ):
                self._put_extra(name, getattr(sampling, name))
        if sampling.logit_bias:
            self._body["logit_bias"] = {str(k): v for k, v in sampling.logit_bias.items()}

    def _stop(self) -> None:
        stop = self._request.stop
        if stop.stop_strings:
            self._body["stop"] = list(stop.stop_strings)
        if stop.stop_token_ids:
            self._put_extra("stop_token_ids", list(stop.stop_token_ids))
        if stop.ignore_eos:
            self._put_extra("ignore_eos", value=True)
        if stop.min_tokens:
            self._put_extra("min_tokens", stop.min_tokens)
        if stop.include_stop_string:
            self._put_extra("include_stop_str_in_output", value=True)

    def _chat(self, chat: conversation.Chat) -> None:
        if chat.tools:
            self._body["tools"] = [_tool(one) for one in chat.tools]
            mode = chat.tool_choice.WhichOneof("mode")
            if mode == "named":
                named = {"name": chat.tool_choice.named}
                self._body["tool_choice"] = {"type": "function", "function": named}
            elif mode is not None:
                self._body["tool_choice"] = mode
            if chat.HasField("parallel_tool_calls"):
                self._body["parallel_tool_calls"] = chat.parallel_tool_calls
        if chat.template_variables_json:
            variables = msgspec.json.decode(chat.template_variables_json)
            self._put_extra("chat_template_kwargs", variables)
        if chat.continue_final_message:
            self._put_extra("continue_final_message", value=True)
            self._body["add_generation_prompt"] = False

    def _reason(self) -> None:
        wish = self._request.reasoning
        effort = _EFFORTS.get(wish.effort)
        if wish.HasField("budget_tokens"):
            self._put_extra("thinking_budget", wish.budget_tokens)
        if wish.HasField("enabled") and "enable_thinking" in self._extra:
            self._body["enable_thinking"] = wish.enabled
        elif wish.HasField("enabled") and "chat_template_kwargs" in self._extra:
            switches = self._body.setdefault("chat_template_kwargs", {})
            switches.setdefault("enable_thinking", wish.enabled)
        elif wish.HasField("enabled"):
            effort = (effort or "medium") if wish.enabled else "none"
        if effort:
            self._body["reasoning_effort"] = effort

    def _constrain(self) -> None:
        constraint = self._request.constraint
        match constraint.WhichOneof("kind"):
            case None:
                return
            case "json_object":
                self._body["response_format"] = {"type": "json_object"}
            case "json_schema":
                schema = {
                    "name": "answer",
                    "schema": msgspec.Raw(constraint.json_schema.encode()),
                    "strict": True,
                }
                self._body["response_format"] = {"type": "json_schema", "json_schema": schema}
            case kind:
                if "structured_outputs" not in self._extra or self._request.HasField("text"):
                    # the dialect puts its own name for the field in place of this one
                    raise self._unsupported("constraint", f"its API takes no {kind}")
                self._body["structured_outputs"] = {kind: getattr(constraint, kind)}

    def _log_probabilities(self, most: int, *, is_chat: bool) -> None:
        if is_chat:
            self._body |= {"logprobs": True, "top_logprobs": most}
        else:
            self._body["logprobs"] = most


def _tool(tool: conversation.Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters_schema_json:
        function["parameters"] = msgspec.Raw(tool.parameters_schema_json.encode())
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}
