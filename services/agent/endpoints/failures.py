"""The two vendors' client errors as one `EndpointError`, with the endpoint's own words kept."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai

from services.agent.endpoints.endpoint import EndpointError
from services.agent.text import one_line

_LONGEST_MESSAGE = 600


@contextmanager
def translated(endpoint: str) -> Generator[None]:
    """Turns what the clients raise into EndpointError that begins with the endpoint's name.

    A frame that is no JSON surfaces from the clients as ValueError; a body of an unexpected
    shape as TypeError, KeyError or AttributeError.
    """
    try:
        yield
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        status = int(error.status_code)
        message = f"{endpoint} answered {status}: {_message(error)}"
        raise EndpointError(message, status=status, code=_code(error.body)) from error
    except (openai.APITimeoutError, anthropic.APITimeoutError) as error:
        raise EndpointError(f"{endpoint} stayed silent for too long") from error
    except (openai.APIConnectionError, anthropic.APIConnectionError) as error:
        cause = one_line(str(error.__cause__ or error), _LONGEST_MESSAGE)
        raise EndpointError(f"{endpoint} cannot be reached: {cause}") from error
    except (openai.APIError, anthropic.APIError) as error:
        message = f"{endpoint} broke off: {_message(error)}"
        raise EndpointError(message, code=_code(error.body)) from error
    except (openai.OpenAIError, anthropic.AnthropicError) as error:
        raise EndpointError(f"{endpoint}: {one_line(str(error), _LONGEST_MESSAGE)}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        detail = one_line(f"{type(error).__name__}: {error}", _LONGEST_MESSAGE)
        raise EndpointError(f"{endpoint} sent something unreadable: {detail}") from error


def _inner(body: Any) -> Any:
    inner = body.get("error", body) if isinstance(body, dict) else None
    return inner if isinstance(inner, dict) else None


def _message(error: openai.APIError | anthropic.APIError) -> str:
    inner = _inner(error.body)
    message = inner.get("message") if inner else None
    return one_line(message if isinstance(message, str) else error.message, _LONGEST_MESSAGE)


def _code(body: Any) -> str:
    inner = _inner(body) or {}
    code = inner.get("code") or inner.get("type") or ""
    return code.lower() if isinstance(code, str) else ""
