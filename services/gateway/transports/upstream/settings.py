"""The entries of `[[gateway.upstreams]]`."""

from __future__ import annotations

import os
import pathlib
import ssl
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from services.backplane.address import Address
from services.backplane.security.exposure import is_loopback
from services.backplane.settings import SettingsError
from services.backplane.units import PositiveSeconds, Seconds

ANY: Final = "*"
_MOST_KEY_BYTES: Final = 16 << 10

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ModelName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class UpstreamSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[gateway.upstreams]]`: another server with OpenAI's API that answers for some models.

    Attributes:
        name: by which logs, metrics and errors call it.
        url: where its paths begin, as of OpenAI's SDKs: `https://llm.example/v1`.
        models: those that it answers for: the names that clients use, or a table of these and the
            names that it has for them itself. A name may be an alias of this fleet; `*` stands for
            every model that is not named, also such as nobody knows.
        when: `fallback`: where this fleet does not know the model or cannot serve it; `always`: the
            fleet is never asked.
        key_file: the file with its API key, one line.
        key_variable: or the environment variable that has it.
        extra_fields: which fields beyond OpenAI's own it may be sent: none, those of vLLM, or all
            that Cortex reads. A request that needs another is refused.
        max_tokens_field: how it calls the most tokens of an answer. OpenAI's models that reason
            want `max_completion_tokens`.
        asks_usage: ask it to count tokens (`stream_options`). false: for servers that refuse the
            field; limits and usage go by an estimate.
        counts: how it counts tokens where clients ask for that alone: by `/tokenize` as vLLM does,
            by `/apply-template` and `/tokenize` as llama-server does, both beside the `/v1` of its
            URL, or by Anthropic's `/v1/messages/count_tokens`, which Cortex has; none: that is
            refused, since OpenAI's API has no such path.
        streams: most generations and embeddings there at one time, of each worker of the gateway;
            one more gets 429.
        connect_seconds: longest wait for a connection.
        first_byte_seconds: longest wait, behind it, until its answer begins.
        idle_seconds: an answer of which nothing more has come for this long is ended.
        answer_seconds: longest time of an answer in all, from the request to its end.
        rest_seconds: after five requests in a row that could not reach it, none is sent to it for
            so long; 0: it is always asked.
        ca: file in PEM with the authorities that may have signed its certificate; empty: those of
            this machine.
        insecure: send keys and conversations to another machine over plain HTTP.
    """

    name: Name
    url: str
    models: dict[ModelName, ModelName] | tuple[ModelName, ...]
    when: Literal["fallback", "always"] = "fallback"
    key_file: str = ""
    key_variable: str = ""
    extra_fields: Literal["none", "vllm", "cortex"] = "none"
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    asks_usage: bool = True
    counts: Literal["none", "vllm", "llama-server", "anthropic"] = "none"
    streams: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 32
    connect_seconds: PositiveSeconds = 5.0
    first_byte_seconds: PositiveSeconds = 60.0
    idle_seconds: PositiveSeconds = 300.0
    answer_seconds: PositiveSeconds = 3600.0
    rest_seconds: Seconds = 10.0
    ca: str = ""
    insecure: bool = False

    @property
    def names(self) -> Mapping[str, str]:
        """The models that it answers for: what clients call them, and what it does itself."""
        if isinstance(self.models, dict):
            return self.models
        return {name: name for name in self.models}

    def theirs(self, model: str) -> str | None:
        """What it calls a model of clients; None where it does not answer for it."""
        names = self.names
        found = names.get(model, names.get(ANY))
        return model if found == ANY else found


def check(upstreams: Sequence[UpstreamSettings], place: str) -> None:
    """Refuses what the types allow and no gateway can use.

    Args:
        upstreams: all entries.
        place: where they were set, for messages.

    Raises:
        SettingsError: with the key at fault.
    """
    for index, one in enumerate(upstreams):
        where = f"{place}[{index}]"
        if any(other.name == one.name for other in upstreams[:index]):
            raise SettingsError(f"{where}.name: {one.name!r} comes twice")
        if not one.models:
            raise SettingsError(f"{where}.models: names no model")
        if one.key_file and one.key_variable:
            raise SettingsError(f"{where}: has both `key_file` and `key_variable`; one will do")
        _check_url(one, where)


def check_files(upstreams: Sequence[UpstreamSettings], place: str) -> None:
    """Reads the keys and the authorities that all entries name.

    Raises:
        SettingsError: one cannot be read.
    """
    for index, one in enumerate(upstreams):
        key_of(one, f"{place}[{index}]")
        tls_of(one, f"{place}[{index}]")


def key_of(one: UpstreamSettings, place: str) -> str:
    """The API key; empty where none is set.

    Raises:
        SettingsError: there is none where it should be, or it can be no header.
    """
    if one.key_variable:
        where, found = f"{place}.key_variable", os.environ.get(one.key_variable, "")
        if not found.strip():
            raise SettingsError(f"{where}: the variable {one.key_variable} is not set")
    elif one.key_file:
        where, found = f"{place}.key_file", _read(one.key_file, f"{place}.key_file")
        if not found.strip():
            raise SettingsError(f"{where}: {one.key_file} is empty")
    else:
        return ""
    key = found.strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise SettingsError(f"{where}: is no key: one line of printable ASCII, without blanks")
    return key


def tls_of(one: UpstreamSettings, place: str) -> ssl.SSLContext | None:
    """How its certificate is checked, where that is set; None: by this machine's authorities.

    Raises:
        SettingsError: the file cannot be used.
    """
    if not one.ca:
        return None
    try:
        return ssl.create_default_context(cafile=one.ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{place}.ca: {one.ca} cannot be used: {error}") from error


def is_on_this_machine(url: str) -> bool:
    """Whether a URL leads nowhere but to this machine."""
    parts = urlsplit(url)
    return is_loopback(Address(parts.hostname or "", parts.port or 80))


def _check_url(one: UpstreamSettings, where: str) -> None:
    try:
        parts = urlsplit(one.url)
        is_usable = bool(parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0)
    except ValueError:
        is_usable, parts = False, urlsplit("")
    if not is_usable or parts.query or parts.fragment or "@" in parts.netloc:
        # not repeated: a password may stand in it
        told = "expected http(s)://HOST/PATH without a user, a query or a fragment"
        raise SettingsError(f"{where}.url: {told}")
    if parts.scheme == "http" and not one.insecure and not is_on_this_machine(one.url):
        told = "plain HTTP to another machine shows keys and conversations to all between"
        raise SettingsError(f"{where}.url: {told}: use https, or set `insecure = true`")


def _read(path: str, where: str) -> str:
    try:
        with pathlib.Path(path).open("rb") as file:
            return file.read(_MOST_KEY_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{where}: {path} cannot be read: {reason}") from error
