"""What the vendors' clients raise as one `EndpointError`, with the endpoint's words kept."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from services.agent.core.text import one_line
from services.agent.endpoints.endpoint import EndpointError

_LONGEST_MESSAGE = 600


@dataclass(slots=True)
class AnswerState:
    """One request; `is_answered` is set once the endpoint has begun to answer."""

    is_answered: bool = False


@contextmanager
def translated(endpoint: str, vendor: Any) -> Generator[AnswerState]:
    """Turns what a client raises into EndpointError that begins with the endpoint's name.

    `vendor` is the client's module, `openai` or `anthropic`: both name their exceptions alike,
    and only the one in use need be imported. A frame that is no JSON surfaces from the clients
    as ValueError; a body of an unexpected shape as TypeError, KeyError or AttributeError.
    """
    import httpx2  # the clients import it anyway, and one of them lets its exceptions through

    exchange = AnswerState()
    try:
        yield exchange
    except vendor.APIStatusError as error:
        status = int(error.status_code)
        message = f"{endpoint} answered {status}: {_message(error)}"
        raise EndpointError(message, status=status, code=_code(error.body)) from error
    except vendor.APITimeoutError as error:
        raise EndpointError(f"{endpoint} stayed silent for too long") from error
    except (vendor.APIConnectionError, httpx2.TransportError) as error:
        cause = one_line(str(error.__cause__ or error), _LONGEST_MESSAGE)
        if exchange.is_answered:
            message = f"{endpoint} closed the connection in the middle of its answer: {cause}"
            raise EndpointError(message, is_cut=True) from error
        raise EndpointError(f"{endpoint} cannot be reached: {cause}") from error
    except vendor.APIError as error:
        message = f"{endpoint} broke off: {_message(error)}"
        raise EndpointError(message, code=_code(error.body)) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        detail = one_line(f"{type(error).__name__}: {error}", _LONGEST_MESSAGE)
        raise EndpointError(f"{endpoint} sent something unreadable: {detail}") from error


def _inner(body: Any) -> dict[str, Any]:
    inner = body.get("error", body) if isinstance(body, dict) else None
    return inner if isinstance(inner, dict) else {}


def _message(error: Any) -> str:
    message = _inner(error.body).get("message")
    return one_line(message if isinstance(message, str) else str(error.message), _LONGEST_MESSAGE)


def _code(body: Any) -> str:
    inner = _inner(body)
    code = inner.get("code") or inner.get("type") or ""
    return code.lower() if isinstance(code, str) else ""
