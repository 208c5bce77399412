"""Which members hold a model: those that have it loaded, and those that have its files."""

from __future__ import annotations

from services.registry.fleet.records import Member, StoredModel


class ModelIndex:
    """From a model's name to the members that hold it, kept as members change.

    Attributes:
        holders: model to the names of the members with an instance of it, in the order in which
            they got it.
        stored: model to its files, by the name of the member that has them.
        disks: the members with files, each with the value of `disk_revision` when these changed.
        disk_revision: grows when any member's files change.
    """

    def __init__(self) -> None:
        self.holders: dict[str, dict[str, None]] = {}
        self.stored: dict[str, dict[str, StoredModel]] = {}
        self.disks: dict[str, int] = {}
        self.disk_revision = 0

    def update(self, old: Member | None, new: Member | None) -> None:
        """Takes in how a member has changed; None stands for no member, before or after."""
        before = _models(old)
        after = _models(new)
        member = new or old
        assert member is not None
        name = member.name
        for model in before - after:
            holders = self.holders[model]
            del holders[name]
            if not holders:
                del self.holders[model]
        for model in after - before:
            self.holders.setdefault(model, {})[name] = None

        before_stored = old.report.stored if old else ()
        after_stored = new.report.stored if new else ()
        if before_stored != after_stored:
            for stored in before_stored:
                places = self.stored.get(stored.model, {})
                places.pop(name, None)
                if not places:
                    self.stored.pop(stored.model, None)
            for stored in after_stored:
                self.stored.setdefault(stored.model, {})[name] = stored
            self.disk_revision += 1
            self.disks.pop(name, None)
            if after_stored:
                self.disks[name] = self.disk_revision


def _models(member: Member | None) -> set[str]:
    return {i.model for i in member.report.instances} if member else set()
