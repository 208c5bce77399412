"""Words keys and groups for a terminal. Pure: messages in, tables out."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import limits_pb2
from services.backplane import protobuf_time
from services.cli.tables import table_of


def keys_table(keys: Iterable[pb.Key]) -> Table:
    """Keys, one a line."""
    table = table_of("id", "name", "principal", "group", "roles", "state", "last used")
    for key in keys:
        table.add_row(
            key.id,
            key.name,
            key.principal,
            key.group,
            ", ".join(key.roles),
            _state(key),
            _when(key, "last_used_at"),
        )
    return table


def key_table(key: pb.Key) -> Table:
    """All that is known of one key."""
    table = table_of("key", key.id)
    rows: dict[str, str | Text] = {
        "name": key.name,
        "principal": key.principal,
        "group": key.group,
        "roles": ", ".join(key.roles),
        "state": _state(key),
        "models": ", ".join(key.scopes.models) or "all",
        "dialects": ", ".join(key.scopes.dialects) or "all",
        "classes": _classes(key.scopes),
        "limits": _limits(key.limits),
        "created": _when(key, "created_at"),
        "expires": _when(key, "expires_at") or "never",
        "last used": _when(key, "last_used_at") or "not yet",
        "rotated": _when(key, "rotated_at"),
        "old secret ends": _when(key, "old_secret_ends_at"),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def groups_table(groups: Iterable[pb.KeyGroup]) -> Table:
    """Groups, one a line."""
    table = table_of("group", "roles by token", "models", "dialects", "classes", "limits")
    for group in groups:
        table.add_row(
            group.name,
            ", ".join(group.roles),
            ", ".join(group.scopes.models) or "all",
            ", ".join(group.scopes.dialects) or "all",
            _classes(group.scopes),
            _limits(group.limits),
        )
    return table


def _state(key: pb.Key) -> Text:
    if key.HasField("revoked_at"):
        return Text(f"revoked {_when(key, 'revoked_at')}", style="red")
    if key.HasField("expires_at"):
        is_over = protobuf_time.seconds(key.expires_at) <= time.time()
        words = f"{'expired' if is_over else 'good until'} {_when(key, 'expires_at')}"
        return Text(words, style="red" if is_over else "green")
    return Text("good", style="green")


def _when(key: pb.Key, field: str) -> str:
    if not key.HasField(field):  # type: ignore[arg-type] # a name of the contract
        return ""
    seconds: Any = protobuf_time.seconds(getattr(key, field))
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _classes(scopes: pb.KeyScopes) -> str:
    return f"{scopes.usual_class or 'default'}, at most {scopes.highest_class or 'interactive'}"


def _limits(limits: limits_pb2.Limits) -> str:
    return ", ".join(f"{field.name}={value:g}" for field, value in limits.ListFields()) or "none"
