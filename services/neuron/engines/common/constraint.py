"""Constrained output: llguidance computes which tokens may come next.

Source: llguidance 1.9 (`LLMatcher`, `fill_next_token_bitmask`).
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from types import MappingProxyType
from typing import Any, Final

import llguidance
import llguidance.numpy
import numpy as np
from numpy.typing import NDArray

from services.neuron.engine_api.task import Constraint, ConstraintKind
from services.neuron.engines.common.logprobs import Row

# White space is where small models lose themselves. Between two marks of JSON stand two spaces at
# most, or a line break and what is indented.
_JSON_OPTIONS: Final = MappingProxyType(
    {"whitespace_pattern": r"\x20{1,2}|\x0D?\x0A(\x20{0,32}|\x09{0,8})"}
)
# Of 1.9, `LLParserLimits`: about 7 ms of a step, and schemas ten times as large as those in use.
_LIMITS: Final = llguidance.LLParserLimits(step_lexer_fuel=100_000, max_grammar_size=30_000)
_BUDGET_SECONDS: Final = 0.5
"""Processor time that an output's constraint may be behind: the first steps build what later ones
use."""
_STEP_SECONDS: Final = 0.002
"""What each step adds to the budget: several times what the masks of real schemas take."""
# llguidance's tree of tokens is no deeper; of 1.9, `PARENT_BITS` in toktrie.
_LONGEST_PIECE_BYTES: Final = 1024
_MOST_KEPT: Final = 64
_NOTHING_FITS: Final = "nothing can satisfy it, as where a definition only leads back to itself."
ANY_OBJECT: Final = '{"type": "object"}'
_WORDS: Final = MappingProxyType(
    {
        ConstraintKind.JSON_OBJECT: "JSON object",
        ConstraintKind.JSON_SCHEMA: "JSON schema",
        ConstraintKind.REGEX: "regex",
        ConstraintKind.LARK: "grammar",
    }
)


class BadConstraintError(Exception):
    """The constraint cannot be enforced; the message says why, in llguidance's words."""


class ConstraintCompiler:
    """Builds matchers for one vocabulary. Building it takes about 4 µs per token, so it is kept.

    The last 64 constraints are kept compiled: agents send the same tools with every request, and a
    constraint that one thread has compiled another can start at once. Safe to call from any thread.
    """

    def __init__(
        self,
        *,
        pieces: Sequence[bytes],
        special_token_ids: Iterable[int],
        eos_token_id: int,
        tokenize: Callable[[bytes], list[int]],
    ) -> None:
        """Reads the vocabulary.

        Args:
            pieces: every token's own bytes, by id.
            special_token_ids: tokens that are no text (control tokens).
            eos_token_id: the token that ends a finished output.
            tokenize: ids of a text without special tokens.
        """
        vocabulary = _Vocabulary(pieces, frozenset(special_token_ids), eos_token_id, tokenize)
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._unusable = ""
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[bytes, llguidance.LLMatcher] = collections.OrderedDict()
        try:
            with _panics_told():
                self._tokenizer = llguidance.LLTokenizer(
                    llguidance.TokenizerWrapper(vocabulary), n_vocab=len(pieces)
                )
        except BadConstraintError as error:  # the model is of use without constraints too
            self._unusable = str(error)

    def compile(self, constraint: Constraint) -> OutputConstraint:
        """Starts to enforce a constraint on one output: at once where it was prepared.

        Raises:
            BadConstraintError: the schema, regex or grammar is not valid or not supported.
        """
        digest = constraint.digest
        with self._lock:
            matcher = self._kept.get(digest)
            if matcher is not None:
                self._kept.move_to_end(digest)
        if matcher is None:
            matcher = self._compiled(constraint)
            with self._lock:
                self._kept[digest] = matcher
                if len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        assert self._tokenizer is not None
        with self._lock:
            return OutputConstraint(matcher.deep_copy(), self._tokenizer.vocab_size)

    def _compiled(self, constraint: Constraint) -> llguidance.LLMatcher:
        tokenizer = self._tokenizer
        if tokenizer is None:
            raise _refused(constraint, f"llguidance cannot read the vocabulary: {self._unusable}")
        with _panics_told():
            try:
                grammar = _grammar(constraint)
            except ValueError as error:
                raise _refused(constraint, str(error)) from error
            matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise _refused(constraint, matcher.get_error())
        started = OutputConstraint(matcher, tokenizer.vocab_size)
        with _panics_told():
            nothing_fits = started.allows_nothing
        if nothing_fits:
            raise _refused(constraint, _NOTHING_FITS)
        return matcher


class OutputConstraint:
    """Where one output stands in the grammar that it is held to."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._bitmask = llguidance.numpy.allocate_token_bitmask(1, vocabulary_size)
        self._budget = _BUDGET_SECONDS

    @property
    def is_finished(self) -> bool:
        """True once nothing but the end may follow."""
        return bool(self._matcher.is_stopped() and not self._matcher.is_error())

    @property
    def allows_nothing(self) -> bool:
        """True where neither a token nor the end may come next: no output has the shape."""
        self.bitmask()  # has the end all the same: that nothing fits is found by making it
        return bool(self._matcher.is_error())

    def bitmask(self) -> NDArray[np.int32]:
        """(ceil(vocabulary / 32),) int32: bit i of word j is set where token 32 j + i may come."""
        begun = time.thread_time()
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bitmask, 0)
        self._budget = min(self._budget + _STEP_SECONDS, _BUDGET_SECONDS)
        self._budget -= time.thread_time() - begun
        row: NDArray[np.int32] = self._bitmask[0]
        return row

    def apply(self, logits: Row) -> None:
        """Sets the logits of all tokens that may not come next to minus infinity, in place."""
        allowed = np.unpackbits(self.bitmask().view(np.uint8), bitorder="little")
        known = min(allowed.size, logits.size)
        logits[:known][allowed[:known] == 0] = -np.inf
        logits[known:] = -np.inf

    def accept(self, token_id: int) -> None:
        """Takes a token that was chosen into the output.

        Raises:
            BadConstraintError: the token may not come here, or the grammar grew too complex, or it
                takes so long that other outputs would wait for it.
        """
        if self._budget < 0:
            raise BadConstraintError("The pattern takes too long to follow; a simpler one may not.")
        # in error it takes the end token, as if the shape were complete
        if self._matcher.is_error() or not self._matcher.consume_token(token_id):
            raise BadConstraintError(_one_line(self._matcher.get_error()))


class _Vocabulary:
    """The shape in which llguidance's TokenizerWrapper wants a tokenizer."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        special: frozenset[int],
        eos_token_id: int,
        tokenize: Callable[[bytes], list[int]],
    ) -> None:
        # llguidance marks tokens that are no text by a leading 0xFF, which no UTF-8 text contains.
        # Pieces that are too long for it (white space, rulers) may then not come either.
        self.tokens = [
            b"\xff" + piece[: _LONGEST_PIECE_BYTES - 1]
            if i in special or not 0 < len(piece) <= _LONGEST_PIECE_BYTES
            else piece
            for i, piece in enumerate(pieces)
        ]
        self.special_token_ids = sorted(special)
        self.eos_token_id = eos_token_id
        self.bos_token_id = None
        self._tokenize = tokenize

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokenize(text.encode() if isinstance(text, str) else text)


@contextlib.contextmanager
def _panics_told() -> Generator[None]:
    """Turns a panic of llguidance's Rust code, which no `except Exception` sees, into an error."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # its class cannot be imported
            raise
        raise BadConstraintError(_one_line(str(error))) from error


def _grammar(constraint: Constraint) -> str:
    """What llguidance compiles; ValueError where it cannot even be read."""
    matcher: Any = llguidance.LLMatcher
    match constraint.kind:
        case ConstraintKind.JSON_OBJECT:
            return str(matcher.grammar_from_json_schema(ANY_OBJECT, overrides=dict(_JSON_OPTIONS)))
        case ConstraintKind.JSON_SCHEMA:
            options = dict(_JSON_OPTIONS)
            return str(matcher.grammar_from_json_schema(constraint.text, overrides=options))
        case ConstraintKind.REGEX:
            return str(matcher.grammar_from_regex(constraint.text))
        case ConstraintKind.LARK:
            return str(matcher.grammar_from_lark(constraint.text))


def _refused(constraint: Constraint, words: str) -> BadConstraintError:
    what = _WORDS[constraint.kind]
    return BadConstraintError(f"The {what} cannot be enforced: {_one_line(words)}")


def _one_line(text: str) -> str:
    words = text.partition("<state>")[0]  # behind it the library prints its innards
    return " ".join(words.split())[:500] or "it cannot be compiled."
