"""Bodies that have every field and every kind of part that their dialect reads."""

from __future__ import annotations

from typing import Any

from tests.unit.gateway.dialects.conversations import PIXEL

DATA_URL = f"data:image/png;base64,{PIXEL}"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
SAMPLING = {
    "temperature": 0.5, "top_p": 0.5, "frequency_penalty": 1, "presence_penalty": 1, "seed": 7,
    "logit_bias": {"5": 1.5}, "top_k": 3, "min_p": 0.1, "typical_p": 0.5, "repeat_penalty": 1.1,
    "repetition_penalty": 1.1, "min_tokens": 1, "stop_token_ids": [3], "ignore_eos": False,
    "stop": ["a", "b"],
}  # fmt: skip

BODIES: dict[str, dict[str, Any]] = {
    "chat": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "t"},
                    {"type": "image_url", "image_url": {"url": DATA_URL}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "r",
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "t"}]},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        "n": 2, "max_tokens": 5, "stream_options": {"include_usage": True}, "logprobs": True,
        "top_logprobs": 2, "reasoning_effort": "low", "reasoning": {"effort": "low"},
        "chat_template_kwargs": {"enable_thinking": True}, "metadata": {"a": "b"},
        "thinking": {"type": "enabled", "budget_tokens": 5}, "modalities": ["text"],
        "structured_outputs": {"json": SCHEMA}, "guided_choice": ["a"], "service_tier": "flex",
        **SAMPLING,
    },
    "chat, allowed tools": {
        "model": "m",
        "messages": [{"role": "user", "content": "t"}],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}],
            },
        },
    },
    "chat, functions": {
        "model": "m",
        "messages": [
            {"role": "assistant", "function_call": {"name": "f", "arguments": {"a": 1}}},
            {"role": "function", "name": "f", "content": "t"},
        ],
        "functions": [FUNCTION],
        "function_call": {"name": "f"},
    },
    "completion": {
        "model": "m", "prompt": ["a", "b"], "n": 2, "logprobs": 2, "echo": True, "max_tokens": 5,
        "suffix": None, "best_of": 2, "stream_options": {"include_usage": True},
        "response_format": {"type": "json_object"}, **SAMPLING,
    },
    "completion, tokens": {"model": "m", "prompt": [[1, 2], [3]], "echo": True},
    "messages": {
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "t"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
                    },
                    {
                        "type": "document",
                        "source": {"type": "content", "content": [{"type": "text", "text": "t"}]},
                        "title": "t",
                        "citations": {"enabled": False},
                    },
                    {
                        "type": "search_result", "source": "s", "title": "t",
                        "content": [{"type": "text", "text": "t"}],
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "r", "signature": "s"},
                    {"type": "redacted_thinking", "data": "s"},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
                    {
                        "type": "mcp_tool_use", "id": "d", "name": "g", "server_name": "s",
                        "input": {"a": 1},
                    },
                    {"type": "mcp_tool_result", "tool_use_id": "d", "content": [{"type": "x"}]},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result", "tool_use_id": "c", "is_error": True,
                        "content": [{"type": "text", "text": "t"}],
                    },
                    {"type": "mid_conv_system", "content": "s"},
                    {"type": "tool_addition", "tool": {"definition": {"name": "h"}}},
                    {"type": "tool_removal", "tool": {"name": "h"}},
                    {"type": "tool_reference", "tool_name": "f"},
                ],
            },
        ],
        "tools": [
            {
                "name": "f", "description": "d", "input_schema": SCHEMA, "strict": True,
                "input_examples": [{"a": "b"}], "allowed_callers": ["direct"],
            },
            {"type": "bash_20250124", "name": "bash"},
            {
                "type": "computer_20250124", "name": "computer", "display_width_px": 9,
                "display_height_px": 9,
            },
        ],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 5, "display": "omitted"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        "stop_sequences": ["a"], "temperature": 0.5, "top_p": 0.5, "top_k": 3, "metadata": {},
        "mcp_servers": [], "context_management": {"edits": []}, "service_tier": "auto",
    },
    "responses": {
        "model": "m",
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "t"},
                    {"type": "input_image", "image_url": DATA_URL, "detail": "auto"},
                ],
            },
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}]},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "t"}]},
            {
                "type": "function_call", "id": "i", "call_id": "c", "name": "f",
                "arguments": "{}", "status": "completed",
            },
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text"}]},
            {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "t"},
            {"type": "custom_tool_call_output", "call_id": "d", "output": {"content": "t"}},
            {"type": "local_shell_call", "call_id": "e", "action": {"type": "exec"}},
            {"type": "local_shell_call_output", "id": "e", "output": "t"},
            {"type": "compaction", "encrypted_content": "t"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "t"}]},
        ],
        "instructions": [{"role": "developer", "content": "t"}],
        "tools": [
            {"type": "function", **FUNCTION},
            {"type": "function", "function": FUNCTION | {"name": "k"}},
            {"type": "custom", "name": "g", "description": "d"},
            {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "h"}]},
            {"type": "web_search", "filters": {"allowed_domains": ["a"]}},
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {
            "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
            "verbosity": "low",
        },
        "reasoning": {"effort": "low", "summary": "auto"}, "max_output_tokens": 5,
        "include": ["reasoning.encrypted_content"], "metadata": {"a": "b"}, "top_logprobs": 2,
        "store": True, "truncation": "auto", "chat_template_kwargs": {"a": 1}, **SAMPLING,
    },
    "responses, allowed tools": {
        "model": "m",
        "input": "t",
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {
            "type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}],
        },
    },
    "ollama chat": {
        "model": "m",
        "messages": [
            {"role": "user", "content": "t", "images": [PIXEL]},
            {
                "role": "assistant", "content": "", "thinking": "r",
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "t", "tool_name": "f", "tool_call_id": "c"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "format": SCHEMA, "think": "low", "keep_alive": "5m", "logprobs": True, "top_logprobs": 2,
        "options": {
            "temperature": 0.5, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "typical_p": 0.5,
            "repeat_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": 0.5, "seed": 7,
            "stop": ["a"], "num_predict": 5, "num_ctx": 9, "mirostat": 0,
        },
    },
    "ollama generate": {
        "model": "m", "prompt": "t", "system": "s", "images": [PIXEL], "raw": False,
        "format": "json", "think": True, "keep_alive": 5, "options": {"stop": "a"},
    },
    "ollama raw": {"model": "m", "prompt": "t", "raw": True},
    "embeddings": {
        "model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 2,
    },
    "ollama embed": {"model": "m", "input": ["a", "b"], "truncate": True, "dimensions": 2},
    "ollama embeddings": {"model": "m", "prompt": "t", "keep_alive": "5m"},
    "ollama show": {"model": "big", "verbose": True},
}  # fmt: skip
