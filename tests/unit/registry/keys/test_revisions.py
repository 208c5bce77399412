"""Watchers are told what has changed, and everything where that is not known any more."""

from services.registry.keys import revisions as module
from services.registry.keys.revisions import Revisions


def test_each_change_is_told_once():
    revisions = Revisions()
    seen = revisions.revision
    for name in ("a", "b", "a"):
        revisions.mark(name)

    assert ["a", "b"] == revisions.since(seen)
    assert [] == revisions.since(revisions.revision)


def test_what_was_forgotten_makes_a_watcher_start_over(monkeypatch):
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 2)
    revisions = Revisions()
    seen = revisions.revision
    for name in ("a", "b", "c"):
        revisions.mark(name)

    assert revisions.since(seen) is None
    assert revisions.since(revisions.revision + 1) is None
    assert ["c", "b"] == revisions.since(revisions.revision - 2)
