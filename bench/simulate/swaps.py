"""`python -m bench.simulate.swaps`: models swap, and caches of conversations outlive them.

The store is the one that workers use, in real folders, over small files. Models of several
revisions and cache formats take turns in two workers; conversations of several principals go on
after a swap, branch, or are never heard of again; files are damaged, cut and removed, and workers
die while they write. After every swap:

1. no tier holds more than its bound, counted on the disk (after every write, too);
2. what lies in the folders is what the store tells of, byte for byte, but for damaged files;
3. what is restored is what was saved under the same model, revision, format and principal.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import pathlib
import random
import sys
import tempfile
import time
from collections import Counter

import numpy as np

from bench.simulate.world import Broken
from services.neuron.engines.common.kv_store.prefix import common_prefix
from services.neuron.engines.common.kv_store.sequence_file import SavedSequence
from services.neuron.engines.common.kv_store.store import KvStore, SavedEntry, Tier

_IDENTITIES = tuple(
    f"{model} r{revision} {cache}"
    for model in ("alpha", "bravo")
    for revision in (1, 2)
    for cache in ("f16", "q8")
)
_PRINCIPALS = ("", "ann", "bob")
_MEMORY_BYTES = 48 << 10
_DISK_BYTES = 128 << 10
_READ_SECONDS = 10.0


@dataclasses.dataclass(slots=True)
class _Conversation:
    """What one principal says to one model: the tokens so far."""

    principal: str
    tokens: list[int]


class Swaps:
    """Two workers that swap models over one pair of folders.

    Args:
        folder: empty; for both tiers.
        seed: of everything that happens.
        key: with which files are encrypted; None: they are not.

    Attributes:
        seen: how often what happened.
    """

    def __init__(self, folder: pathlib.Path, seed: int, key: bytes | None = None) -> None:
        self._dice = random.Random(seed)
        self._key = key
        self._tiers = [
            Tier(folder / "memory", _MEMORY_BYTES),
            Tier(folder / "disk", _DISK_BYTES),
        ]
        for tier in self._tiers:
            tier.folder.mkdir()
        self._stores = [self._store(identity) for identity in _IDENTITIES[:2]]
        self._loaded = list(_IDENTITIES[:2])
        self._auditors = [self._store(identity) for identity in _IDENTITIES]
        self._talks: dict[str, list[_Conversation]] = {name: [] for name in _IDENTITIES}
        self.seen: Counter[str] = Counter()

    def swap(self) -> None:
        """One model goes and saves what it has; another comes, and its conversations go on.

        Raises:
            Broken: a rule of the store was.
        """
        worker = self._dice.randrange(2)
        leaving = self._loaded[worker]
        self._save(leaving, self._stores[worker])
        self._mishap()
        coming = self._dice.choice([one for one in _IDENTITIES if one not in self._loaded])
        self._loaded[worker], self._stores[worker] = coming, self._store(coming)
        self._go_on(coming, self._stores[worker])
        self._check()
        self.seen["swaps"] += 1

    def _store(self, identity: str) -> KvStore:
        return KvStore(self._tiers, identity=identity, key=self._key)

    def _save(self, identity: str, store: KvStore) -> None:
        for talk in self._talks[identity][-3:]:
            tokens = np.array(talk.tokens, dtype=np.int32)
            saved = SavedSequence(tokens, _state(identity, talk.principal, talk.tokens))
            is_kept = store.put(talk.principal, saved, seconds=len(tokens) / 100)
            self.seen["saved" if is_kept else "not kept"] += 1
            self._check_bounds()

    def _go_on(self, identity: str, store: KvStore) -> None:
        """The next turns of old conversations, of branches of them, and of new ones."""
        talks, dice = self._talks[identity], self._dice
        for talk in dice.sample(talks, min(len(talks), 2)):
            if dice.random() < 0.2:
                talk.tokens = talk.tokens[: dice.randint(1, len(talk.tokens))]
            talk.tokens += _turn(dice)
            self._restore(identity, store, talk)
        talks.append(_Conversation(dice.choice(_PRINCIPALS), _turn(dice)))
        self._restore(identity, store, talks[-1])
        del talks[:-6]

    def _restore(self, identity: str, store: KvStore, talk: _Conversation) -> None:
        best: SavedEntry | None = None
        most = 0
        for entry in store.entries(talk.principal):
            length = common_prefix(entry.tokens, talk.tokens)
            if length > most:
                best, most = entry, length
        if best is None:
            self.seen["nothing to restore"] += 1
            return
        found = store.read(best, seconds=_READ_SECONDS)
        if found is None:
            self.seen["damaged or gone"] += 1
            return
        if found.state != _state(identity, talk.principal, found.tokens.tolist()):
            raise Broken(f"{talk.principal!r} of {identity} was given another one's state")
        if common_prefix(found.tokens, talk.tokens) != most:
            raise Broken(f"{best.path.name} tells of other tokens than it holds")
        self.seen["restored"] += 1
        self.seen["tokens restored"] += most

    def _mishap(self) -> None:
        """Now and then a file is damaged, cut or removed, or half of one is left."""
        if self._dice.random() > 0.1:
            return
        files = [path for tier in self._tiers for path in _files_of(tier)]
        if not files:
            return
        file = pathlib.Path(self._dice.choice(sorted(files)))
        kind = self._dice.choice(("damaged", "cut", "removed", "half written"))
        self.seen[kind] += 1
        if kind == "removed":
            file.unlink()
        elif kind == "half written":
            file.with_name(f"{file.name}.part-1").write_bytes(file.read_bytes()[:100])
        else:
            # The store takes it that nobody writes into its files; who reads anew is not misled.
            self._auditors = [self._store(identity) for identity in _IDENTITIES]
            content = bytearray(file.read_bytes())
            if kind == "damaged":
                content[self._dice.randrange(len(content))] ^= 0xFF
            else:
                del content[self._dice.randrange(len(content)) :]
            file.write_bytes(content)

    def _check_bounds(self) -> None:
        for tier in self._tiers:
            used = sum(_files_of(tier).values())
            if used > tier.most_bytes:
                raise Broken(f"{tier.folder.name} holds {used} of {tier.most_bytes} bytes")

    def _check(self) -> None:
        """All that lies in the folders is what the store tells of, and within the bounds."""
        self._check_bounds()
        told = {
            str(entry.path): entry.size_bytes
            for auditor in self._auditors
            for entry in auditor.all_entries()
        }
        held = {path: size for tier in self._tiers for path, size in _files_of(tier).items()}
        # One whose head is damaged is told by nobody. It counts, and goes when room is made.
        unread = held.keys() - told.keys()
        self.seen["most files that cannot be read"] = max(
            len(unread), self.seen["most files that cannot be read"]
        )
        if told != {path: size for path, size in held.items() if path not in unread}:
            raise Broken(f"told {sum(told.values())} bytes, held {sum(held.values())}")
        self.seen["most bytes held"] = max(sum(held.values()), self.seen["most bytes held"])
        if len(unread) > self.seen["damaged"] + self.seen["cut"]:
            raise Broken(f"{len(unread)} files that nobody can read")


def _files_of(tier: Tier) -> dict[str, int]:
    """Sizes of a tier's files, but for its lock and what somebody has left half written."""
    found: dict[str, int] = {}
    for model in os.scandir(tier.folder):
        if model.is_dir():
            for scope in os.scandir(model):
                for file in os.scandir(scope):
                    if file.name.endswith(".kv"):
                        found[file.path] = file.stat().st_size
    return found


def _turn(dice: random.Random) -> list[int]:
    """Tokens of one turn: few different ones, so that conversations begin alike."""
    return [dice.randrange(3) for _ in range(dice.choice((8, 32, 96)))]


def _state(identity: str, principal: str, tokens: list[int]) -> bytes:
    """What an engine would have of these tokens, and of nothing else: some 20 bytes for each."""
    name = hashlib.sha256(f"{identity}\0{principal}\0{tokens}".encode()).digest()
    return name * (1 + len(tokens) * 20 // len(name))


def run(swaps: int, seed: int, key: bytes | None = None) -> Counter[str]:
    """Runs so many swaps. Returns: how often what happened.

    Raises:
        Broken: a rule of the store was.
    """
    with tempfile.TemporaryDirectory() as folder:
        simulated = Swaps(pathlib.Path(folder), seed, key)
        for number in range(swaps):
            try:
                simulated.swap()
            except Broken as broken:
                raise Broken(f"seed {seed}, swap {number}: {broken}") from None
        return simulated.seen


def main() -> int:
    """Runs and reports; exit code 1 if anything broke."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulate.swaps", description=__doc__)
    parser.add_argument("--swaps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sealed", action="store_true", help="files are encrypted")
    asked = parser.parse_args()
    began = time.perf_counter()
    try:
        seen = run(asked.swaps, asked.seed, bytes(32) if asked.sealed else None)
    except Broken as broken:
        print(f"broken: {broken}")
        return 1
    print(f"{asked.swaps} swaps, nothing broken, {time.perf_counter() - began:.1f} s")
    print(dict(seen.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
