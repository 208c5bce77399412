"""What a key is for: models and dialects by patterns, in which `*` and `?` stand for anything."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Final

Patterns = tuple[str, ...]
# Names that were asked for and what was said; clients make up names, keys have few.
_MOST_ANSWERS: Final = 64


class Scopes:
    """What a key is for, by several lists that all have to allow it: the key's, its group's.

    Args:
        models: lists of patterns of names; an empty one allows all.
        dialects: likewise.

    Attributes:
        are_open: they allow everything.
        have_models: they do not allow all models.
    """

    __slots__ = ("_answers", "_dialects", "_models", "are_open", "have_models")

    def __init__(
        self, models: Iterable[Iterable[str]] = (), dialects: Iterable[Iterable[str]] = ()
    ) -> None:
        self._models = _lists(models)
        self._dialects = _lists(dialects)
        self._answers: dict[object, bool] = {}
        self.have_models = bool(self._models)
        self.are_open = not (self._models or self._dialects)

    def allow_model(self, asked: str, model: str) -> bool:
        """True if a model may be asked for, by the name in the request or by its own.

        Args:
            asked: name or alias.
            model: the own name of the model behind it.
        """
        if not self._models:
            return True
        answer = self._answers.get((asked, model))
        if answer is None:
            answer = all(_match(one, asked) or _match(one, model) for one in self._models)
            self._remember((asked, model), answer=answer)
        return answer

    def allow_dialect(self, dialect: str) -> bool:
        """Whether a dialect may be spoken."""
        if not self._dialects:
            return True
        answer = self._answers.get(dialect)
        if answer is None:
            answer = all(_match(one, dialect) for one in self._dialects)
            self._remember(dialect, answer=answer)
        return answer

    def _remember(self, asked: object, *, answer: bool) -> None:
        if len(self._answers) >= _MOST_ANSWERS:
            self._answers.clear()
        self._answers[asked] = answer


def _lists(given: Iterable[Iterable[str]]) -> tuple[Patterns, ...]:
    return tuple(patterns for one in given if (patterns := tuple(one)))


def _match(patterns: Patterns, name: str) -> bool:
    return _compiled(patterns).fullmatch(name) is not None


@functools.lru_cache(maxsize=4096)
def _compiled(patterns: Patterns) -> re.Pattern[str]:
    """What matches as one of the patterns does. Brackets in them are brackets."""
    words = (re.escape(one).replace(r"\*", ".*").replace(r"\?", ".") for one in patterns)
    return re.compile("|".join(words), re.DOTALL)
