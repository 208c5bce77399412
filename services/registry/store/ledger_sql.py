"""The ledger as tables, of both databases.

What neurons measured stands in a table beside that of what gateways counted, so that a registry of
an earlier version goes on with the same store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, LiteralString

from services.registry.store.ledger import COUNTS, UsageQuery, UsageRow

KEYS: Final[dict[str, LiteralString]] = {
    "principal": "principal",
    "model": "model",
    "hour": "hour",
}
TABLES: Final[tuple[LiteralString, ...]] = (
    """CREATE TABLE IF NOT EXISTS cortex_shares (
         principal TEXT NOT NULL, meter INTEGER NOT NULL, period INTEGER NOT NULL,
         starts_at BIGINT NOT NULL, ends_at BIGINT NOT NULL, holder TEXT NOT NULL,
         used BIGINT NOT NULL, granted BIGINT NOT NULL, lapses_at DOUBLE PRECISION NOT NULL,
         PRIMARY KEY (principal, meter, period, starts_at, holder))""",
    """CREATE TABLE IF NOT EXISTS cortex_usage (
         hour BIGINT NOT NULL, principal TEXT NOT NULL, model TEXT NOT NULL,
         requests BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL,
         completion_tokens BIGINT NOT NULL, reasoning_tokens BIGINT NOT NULL,
         PRIMARY KEY (hour, principal, model))""",
    """CREATE TABLE IF NOT EXISTS cortex_usage_holders (
         holder TEXT PRIMARY KEY, number BIGINT NOT NULL, reported_at BIGINT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS cortex_device_use (
         hour BIGINT NOT NULL, principal TEXT NOT NULL, model TEXT NOT NULL,
         prefill BIGINT NOT NULL, decode BIGINT NOT NULL, load BIGINT NOT NULL,
         unload BIGINT NOT NULL, PRIMARY KEY (hour, principal, model))""",
    """CREATE TABLE IF NOT EXISTS cortex_device_sources (
         source TEXT NOT NULL, principal TEXT NOT NULL, model TEXT NOT NULL,
         prefill BIGINT NOT NULL, decode BIGINT NOT NULL, load BIGINT NOT NULL,
         unload BIGINT NOT NULL, reported_at BIGINT NOT NULL,
         PRIMARY KEY (source, principal, model))""",
    """CREATE TABLE IF NOT EXISTS cortex_device_energy (
         hour BIGINT NOT NULL, principal TEXT NOT NULL, model TEXT NOT NULL,
         millijoules BIGINT NOT NULL, PRIMARY KEY (hour, principal, model))""",
    """CREATE TABLE IF NOT EXISTS cortex_energy_sources (
         source TEXT NOT NULL, principal TEXT NOT NULL, model TEXT NOT NULL,
         millijoules BIGINT NOT NULL, reported_at BIGINT NOT NULL,
         PRIMARY KEY (source, principal, model))""",
)
LOAD_SHARES: Final[LiteralString] = """
    SELECT principal, meter, period, starts_at, ends_at, holder, used, granted, lapses_at
    FROM cortex_shares"""
SAVE_SHARE: Final[LiteralString] = """
    INSERT INTO cortex_shares VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (principal, meter, period, starts_at, holder) DO UPDATE SET
      used = excluded.used, granted = excluded.granted, lapses_at = excluded.lapses_at"""
DROP_SHARES: Final[LiteralString] = (
    "DELETE FROM cortex_shares WHERE (ends_at > 0 AND ends_at < ?)"
    " OR (ends_at = 0 AND lapses_at < ?)"
)
NOTE_REPORT: Final[LiteralString] = """
    INSERT INTO cortex_usage_holders VALUES (?, ?, ?)
    ON CONFLICT (holder) DO UPDATE SET
      number = excluded.number, reported_at = excluded.reported_at
    WHERE cortex_usage_holders.number < excluded.number"""
ADD_USAGE: Final[LiteralString] = """
    INSERT INTO cortex_usage VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (hour, principal, model) DO UPDATE SET
      requests = cortex_usage.requests + excluded.requests,
      prompt_tokens = cortex_usage.prompt_tokens + excluded.prompt_tokens,
      cached_tokens = cortex_usage.cached_tokens + excluded.cached_tokens,
      completion_tokens = cortex_usage.completion_tokens + excluded.completion_tokens,
      reasoning_tokens = cortex_usage.reasoning_tokens + excluded.reasoning_tokens"""
FORGET: Final[Sequence[LiteralString]] = (
    "DELETE FROM cortex_usage WHERE hour < ?",
    "DELETE FROM cortex_usage_holders WHERE reported_at < ?",
    "DELETE FROM cortex_device_use WHERE hour < ?",
    # all of a source or nothing: what it tells of again would be counted again
    """DELETE FROM cortex_device_sources WHERE source NOT IN
         (SELECT source FROM cortex_device_sources WHERE reported_at >= ?)""",
    "DELETE FROM cortex_device_energy WHERE hour < ?",
    """DELETE FROM cortex_energy_sources WHERE reported_at < ? AND source NOT IN
         (SELECT source FROM cortex_device_sources)""",
)
LOAD_TOTALS: Final[LiteralString] = """
    SELECT principal, model, prefill, decode, load, unload
    FROM cortex_device_sources WHERE source = ?"""
TOLD_AT: Final[LiteralString] = (
    "SELECT MAX(reported_at) FROM cortex_device_sources WHERE source = ?"
)
SAVE_TOTAL: Final[LiteralString] = """
    INSERT INTO cortex_device_sources VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (source, principal, model) DO UPDATE SET prefill = excluded.prefill,
      decode = excluded.decode, load = excluded.load, unload = excluded.unload,
      reported_at = excluded.reported_at"""
ADD_DEVICE_USE: Final[LiteralString] = """
    INSERT INTO cortex_device_use VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (hour, principal, model) DO UPDATE SET
      prefill = cortex_device_use.prefill + excluded.prefill,
      decode = cortex_device_use.decode + excluded.decode,
      load = cortex_device_use.load + excluded.load,
      unload = cortex_device_use.unload + excluded.unload"""
LOAD_ENERGY: Final[LiteralString] = """
    SELECT principal, model, millijoules FROM cortex_energy_sources WHERE source = ?"""
SAVE_ENERGY: Final[LiteralString] = """
    INSERT INTO cortex_energy_sources VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (source, principal, model) DO UPDATE SET
      millijoules = excluded.millijoules, reported_at = excluded.reported_at"""
ADD_ENERGY: Final[LiteralString] = """
    INSERT INTO cortex_device_energy VALUES (?, ?, ?, ?)
    ON CONFLICT (hour, principal, model) DO UPDATE SET
      millijoules = cortex_device_energy.millijoules + excluded.millijoules"""
_SUMS: Final[LiteralString] = """
    SUM(requests), SUM(prompt_tokens), SUM(cached_tokens), SUM(completion_tokens),
    SUM(reasoning_tokens), SUM(prefill), SUM(decode), SUM(load), SUM(unload), SUM(millijoules)"""
_USED: Final[LiteralString] = """(
    SELECT hour, principal, model, requests, prompt_tokens, cached_tokens, completion_tokens,
      reasoning_tokens, 0 AS prefill, 0 AS decode, 0 AS load, 0 AS unload, 0 AS millijoules
    FROM cortex_usage
    UNION ALL SELECT hour, principal, model, 0, 0, 0, 0, 0, prefill, decode, load, unload, 0
    FROM cortex_device_use
    UNION ALL SELECT hour, principal, model, 0, 0, 0, 0, 0, 0, 0, 0, 0, millijoules
    FROM cortex_device_energy) AS used"""


def usage_statement(query: UsageQuery) -> tuple[LiteralString, list[str | int]]:
    """The statement of a query, and its parameters."""
    names: list[LiteralString] = [KEYS[name] for name in query.by]
    columns: list[LiteralString] = [*names, _SUMS]
    conditions: list[LiteralString] = ["hour >= ?"]
    values: list[str | int] = [query.since]
    if query.until:
        conditions.append("hour < ?")
        values.append(query.until)
    if query.principal is not None:
        conditions.append("principal = ?")
        values.append(query.principal)
    told, where, by = ", ".join(columns), " AND ".join(conditions), ", ".join(names)
    grouped: LiteralString = f" GROUP BY {by}" if by else ""
    # of literals alone, as its type says; what was asked for is in the values
    return f"SELECT {told} FROM {_USED} WHERE {where}{grouped}", values  # noqa: S608


def usage_rows(query: UsageQuery, found: Iterable[Sequence[object]]) -> list[UsageRow]:
    """The rows of a query's answer."""
    rows: list[UsageRow] = []
    for values in found:
        named = dict(zip([*query.by, *COUNTS], values, strict=True))
        if named["requests"] is not None:  # the sum of no rows
            counts = {name: int(str(named[name])) for name in COUNTS}
            rows.append(
                UsageRow(
                    int(str(named.get("hour", 0))),
                    str(named.get("principal", "")),
                    str(named.get("model", "")),
                    **counts,
                )
            )
    return rows
