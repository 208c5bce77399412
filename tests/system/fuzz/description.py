"""What `/openapi.json` says of requests and answers, held against those that are made."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema

_JSON = "application/json"


class Description:
    """A document of OpenAPI 3.1.

    Args:
        document: decoded.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        # those without parameters first: they are more exact
        self._paths = [
            (re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(path))), methods)
            for path, methods in sorted(document["paths"].items(), key=lambda one: "{" in one[0])
        ]

    def complaint(
        self, asked: tuple[str, str], body: bytes | None, status: int, told: bytes
    ) -> str:
        """What is not as it was described; empty where nothing is.

        Args:
            asked: method and path.
            body: that was sent.
            status: of the answer.
            told: its body, where it is JSON; else empty.
        """
        method, path = asked
        described = (each for form, each in self._paths if form.fullmatch(path))
        operations: dict[str, Any] = next(described, {})
        operation = operations.get(method.lower())
        if operation is None:
            return ""
        is_well = 200 <= status < 300
        if is_well and body and "requestBody" in operation:
            wrong = self._wrong(operation["requestBody"], body)
            if wrong:
                return f"{method} {path}: taken, and not as described: {wrong}"
        answer = operation["responses"]["2XX" if is_well else "default"]
        wrong = self._wrong(answer, told) if told and (is_well or status >= 400) else ""
        return f"{method} {path}: answered {status}, and not as described: {wrong}" if wrong else ""

    def _wrong(self, described: dict[str, Any], data: bytes) -> str:
        content = described.get("content", {}).get(_JSON)
        try:
            value = json.loads(data)
        except ValueError:  # lines of JSON, for one
            return ""
        if content is None:
            return ""
        schema = {**content["schema"], "components": self._document["components"]}
        errors = jsonschema.Draft202012Validator(schema).iter_errors(value)
        return "; ".join(f"{one.json_path}: {one.message[:200]}" for one in list(errors)[:3])
