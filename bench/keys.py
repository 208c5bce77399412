"""What it costs a request to find out who asks: `python -m bench.keys`.

Measured in turn, so that a busy machine is as busy for each: a gateway without keys, one with a key
in its file, and ones with thousands of keys of the store, whose scopes name models and dialects.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Final

from cortex.v1 import key_service_pb2 as pb
from services.backplane.security import api_key
from services.gateway.auth.auth import Auth
from services.gateway.settings import ApiKey, AuthSettings

_KEYS: Final = 5_000
_ROUNDS: Final = 15
_CALLS: Final = 10_000
_ADDRESS: Final = "192.0.2.1"


def ways() -> Mapping[str, Callable[[], object]]:
    """What is measured, by what a table calls it."""
    plain, secret = _with_store(pb.KeyScopes())
    scoped, narrow = _with_store(pb.KeyScopes(models=["qwen*", "llama-?b"], dialects=["openai_*"]))
    static = Auth(AuthSettings(keys=(ApiKey("ann", key="sk-ann"),)))
    nobody = Auth(AuthSettings())
    return {
        "no keys": _asking(nobody, ""),
        "a key of the file": _asking(static, "sk-ann"),
        f"one of {_KEYS} keys of the store": _asking(plain, secret),
        "one with scopes, which are asked": _asking(scoped, narrow),
    }


def main() -> None:
    """Prints microseconds of CPU per request, the median of the rounds and the least."""
    measured: dict[str, list[float]] = {}
    asked = ways()
    for _ in range(_ROUNDS):
        for name, ask in asked.items():
            began = time.process_time()
            for _ in range(_CALLS):
                ask()
            took = (time.process_time() - began) / _CALLS * 1e6
            measured.setdefault(name, []).append(took)
    print("| who asks | CPU µs per request, median | least |")
    print("|---|---|---|")
    for name, each in measured.items():
        print(f"| {name} | {statistics.median(each):.2f} | {min(each):.2f} |")


def _asking(auth: Auth, secret: str) -> Callable[[], object]:
    headers = {"host": "a", "content-type": "application/json"}
    if secret:
        headers["authorization"] = f"Bearer {secret}"

    def ask() -> None:
        holder = auth.holder(headers, _ADDRESS)
        holder.require_dialect("openai_chat")
        holder.scopes.allow_model("qwen3-8b", "qwen3-8b")

    return ask


def _with_store(scopes: pb.KeyScopes) -> tuple[Auth, str]:
    """One that knows many keys, and one of them."""
    auth = Auth(AuthSettings())
    records: list[pb.KeyRecord] = []
    secret = ""
    for number in range(_KEYS):
        key_id = api_key.new_id()
        secret = api_key.new_key(key_id)
        key = pb.Key(id=key_id, name=f"{number}", principal=f"{number}", roles=["user"])
        key.scopes.CopyFrom(scopes)
        digest = pb.KeySecret(digest=api_key.digest_of(secret))
        records.append(pb.KeyRecord(key=key, secrets=[digest]))
    auth.store.apply(pb.WatchKeysResponse(revision=1, is_whole=True, has_keys=True, keys=records))
    return auth, secret


if __name__ == "__main__":
    main()
