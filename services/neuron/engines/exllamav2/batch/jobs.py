"""A job of the library's generator that samples by our rules and keeps what it sampled.

Taken over from the library: pages, prefill, sampling itself. Done here, at the one place through
which every sampled token goes: the check for broken logits, logprobs from the raw logits, bias and
output penalties. Tokens are read from here and not from the generator's results, which hold back
tokens behind incomplete characters and are lost whenever another job raises.

Source: ExLlamaV2DynamicJob.receive_logits in exllamav2/generator/dynamic.py (0.3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from exllamav2.generator import ExLlamaV2DynamicJob, ExLlamaV2Sampler

from services.neuron.engine_api.events import TokenLogprob
from services.neuron.engines.common.logprobs import LogprobReader, Row
from services.neuron.engines.exllamav2.batch.filters import ConstraintFilter
from services.neuron.engines.exllamav2.batch.logit_rules import LogitRules
from services.neuron.engines.exllamav2.batch.sampling import PositionalRandom


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


class SampledJob(ExLlamaV2DynamicJob):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """One sequence in the generator's batch.

    Attributes:
        is_broken: the model gave logits that are no numbers; what was sampled since is void.
        constraint: the filter that shapes the output, or None.
    """

    def __init__(
        self,
        token_ids: Sequence[int],
        *,
        max_new_tokens: int,
        settings: dict[str, Any],
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
            max_new_tokens: how many pages to reserve for; drafts included.
            settings: every field of the sampler's settings.
            rules: applied to the raw logits.
            chance: drawn from once per token.
            ban: tokens that are kept away at first.
            logprobs: None for none.
            constraint: brought to its place behind `token_ids`.
            embeddings: the library's picture embeddings whose ids are among `token_ids`.
        """
        super().__init__(
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
        self._sampled: list[Sampled] = []
        self._sampled_count = 0

    def receive_logits(self, logits: Any) -> Any:
        """Samples the next token from (1, 1, vocabulary) float32 logits in host memory."""
        row: Row = logits[0, 0].numpy()
        if not np.isfinite(row.max()):  # NaN wins every comparison of max
            self.is_broken = True
            row.fill(0.0)
        reader = self._read(row)
        banned = self._ban.token_ids if self._sampled_count < self._ban.tokens else ()
        self._rules.apply(row, banned=banned)
        result = super().receive_logits(logits)
        token_id = int(result[0].item())
        self._rules.count(token_id)
        self._sampled_count += 1
        self._sampled.append(Sampled(token_id, None if reader is None else reader.of(token_id)))
        return result

    def take(self) -> list[Sampled]:
        """What was sampled since the last call."""
        taken, self._sampled = self._sampled, []
        return taken

    @property
    def has_started(self) -> bool:
        """Its pages are allocated."""
        return self.time_first_prefill is not None

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
        """It was prepared for this generator."""
        return self.generator is generator

    @property
    def pages_wanted(self) -> int:
        """How many unused pages it takes now, shared ones not counted; once it is prepared."""
        return int(self.current_new_pages_required())

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
