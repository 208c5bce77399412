"""A job of the library's generator that samples by our rules and keeps what it sampled.

Taken over from the library: pages, prefill, sampling itself. Done here, at the one place through
which every sampled token goes: logprobs from the raw logits, bias and output penalties. Tokens are
read from here and not from the generator's results, which hold back tokens behind incomplete
characters and are lost whenever another job raises.

Source: ExLlamaV2DynamicJob.receive_logits in exllamav2/generator/dynamic.py (0.3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from exllamav2.generator import ExLlamaV2Sampler

from services.neuron.engine_api.events import TokenLogprob
from services.neuron.engines.common.logprobs import LogprobReader, Row
from services.neuron.engines.exllamav2.batch.filters import ConstraintFilter
from services.neuron.engines.exllamav2.batch.logit_rules import LogitRules
from services.neuron.engines.exllamav2.batch.sampling import PositionalRandom
from services.neuron.engines.exllamav2.paging.scoped_job import ScopedJob


class Sampled(NamedTuple):
    """One sampled token."""

    token_id: int
    logprob: TokenLogprob | None


class Ban(NamedTuple):
    """Tokens that must not come yet.

    Attributes:
        token_ids: which.
        tokens: among how many of this job's first tokens they must not come.
    """

    token_ids: Collection[int]
    tokens: int


class LogprobWish(NamedTuple):
    """Log probabilities are wanted of every token.

    Attributes:
        top: how many alternatives of each.
        piece: a token's own bytes.
    """

    top: int
    piece: Callable[[int], bytes]


class SampledJob(ScopedJob):
    """One sequence in the generator's batch.

    Attributes:
        is_broken: the model gave logits that are no numbers; what was sampled since is void.
        constraint: the filter that shapes the output, or None.
    """

    def __init__(
        self,
        token_ids: Sequence[int],
        *,
        scope: str,
        max_new_tokens: int,
        settings: dict[str, Any],
        is_greedy: bool,
        rules: LogitRules,
        chance: PositionalRandom,
        ban: Ban,
        logprobs: LogprobWish | None,
        constraint: ConstraintFilter | None,
        embeddings: Sequence[Any],
    ) -> None:
        """Makes a job.

        Args:
            token_ids: prompt and output so far.
            scope: whose they are.
            max_new_tokens: how many pages to reserve for; drafts included.
            settings: every field of the sampler's settings.
            is_greedy: these settings always choose the likeliest token, by the row as it is.
            rules: applied to the raw logits.
            chance: drawn from once per token.
            ban: tokens that are kept away at first.
            logprobs: None for none.
            constraint: brought to its place behind `token_ids`.
            embeddings: the library's picture embeddings whose ids are among `token_ids`.
        """
        super().__init__(
            scope=scope,
            input_ids=torch.tensor([list(token_ids)], dtype=torch.long),
            max_new_tokens=max_new_tokens,
            gen_settings=ExLlamaV2Sampler.Settings(**settings),
            filters=[] if constraint is None else [constraint],
            embeddings=list(embeddings),
        )
        self.rng = chance
        self.is_broken = False
        self.constraint = constraint
        self._rules = rules
        self._ban = ban
        self._logprobs = logprobs
        self._is_plain = is_greedy and logprobs is None and constraint is None and rules.is_idle
        self._sampled: list[Sampled] = []
        self._sampled_count = 0
        self._read_tokens = 0
        self._is_counted = False  # its prompt is read, and was counted

    @property
    def takes_best(self) -> bool:
        """True if its next token is simply the likeliest: no row of logits is needed for it."""
        return self._is_plain and self._sampled_count >= self._ban.tokens

    def receive_best(self, token_id: int) -> None:
        """Notes the likeliest token as the next one."""
        self._note(token_id, None)

    def receive_broken(self) -> None:
        """Records that the model's logits were NaN or infinite."""
        self.is_broken = True

    def receive_logits(self, logits: Any) -> Any:
        """Samples the next token from (1, 1, vocabulary) logits in host memory, of any type."""
        logits = logits.float()
        row: Row = logits[0, 0].numpy()
        reader = self._read(row)
        banned = self._ban.token_ids if self._sampled_count < self._ban.tokens else ()
        self._rules.apply(row, banned=banned)
        result = super().receive_logits(logits)
        self._note(int(result[0].item()), reader)
        return result

    def _note(self, token_id: int, reader: LogprobReader | None) -> None:
        self._rules.count(token_id)
        self._sampled_count += 1
        self._sampled.append(Sampled(token_id, None if reader is None else reader.of(token_id)))

    def computed(self) -> tuple[int, int]:
        """Tokens computed since the last call: of the prompt (reused ones aside), and new ones."""
        made = len(self._sampled)  # those of this step: they are taken behind it
        if self._is_counted or not self.has_started:
            return 0, made
        read = max(0, self.prefilled_tokens - self.reused_tokens)
        before, self._read_tokens = self._read_tokens, read
        self._is_counted = self.has_sampled
        return max(0, read - before), made

    def take(self) -> list[Sampled]:
        """What was sampled since the last call."""
        taken, self._sampled = self._sampled, []
        return taken

    @property
    def has_started(self) -> bool:
        """True once its pages are allocated."""
        return self.time_first_prefill is not None

    @property
    def has_sampled(self) -> bool:
        """True once it has sampled a token."""
        return self._sampled_count > 0

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens read, cached ones among them; the last one is read with the first step."""
        read, length = int(self.sequences[0].kv_position), len(self.sequences[0].sequence_ids)
        return length if read == length - 1 else read

    @property
    def reused_tokens(self) -> int:
        """Tokens that were found in the cache."""
        return int(self.cached_pages * self.generator.page_size + self.cached_tokens)

    def prepare(self, generator: Any) -> None:
        """Cuts the prompt into pages, by which those that lie in a generator's cache are found."""
        self.prepare_for_queue(generator, -1)

    def is_prepared(self, generator: Any) -> bool:
        """True once the generator has prepared it."""
        return self.generator is generator

    @property
    def unread_tokens(self) -> int:
        """Prompt tokens that are still to be read, those in the cache not counted."""
        (sequence,) = self.sequences
        read = int(sequence.kv_position)
        if not self.has_started:
            generator = self.generator
            for digest in sequence.page_hashes:
                known = generator.referenced_pages.get(digest)
                page = known or generator.unreferenced_pages.get(digest)
                if page is None or page.kv_position != generator.page_size:
                    break
                read += generator.page_size
        return max(0, len(sequence.sequence_ids) - 1 - read)

    def _read(self, row: Row) -> LogprobReader | None:
        wish = self._logprobs
        return None if wish is None else LogprobReader(row, top=wish.top, piece=wish.piece)
