"""Where the attacked fleet is, and what a request to it looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A fleet.

    Attributes:
        host: of its gateway.
        port: of its gateway.
        model: what answers.
        keys: by principal.
    """

    host: str
    port: int
    model: str
    keys: dict[str, str]
    path: str = "/v1/chat/completions"

    def headers(self, principal: str) -> dict[str, str]:
        """Those of a request."""
        key = self.keys[principal]
        return {"content-type": "application/json", "authorization": f"Bearer {key}"}

    def chat(self, text: str, **more: Any) -> dict[str, Any]:
        """The body of a request."""
        return {"model": self.model, "messages": [{"role": "user", "content": text}], **more}
