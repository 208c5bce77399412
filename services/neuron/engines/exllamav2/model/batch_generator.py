"""The library's generator with a decode step that looks at the logits of all streams at once.

0.3.2 copies every stream's logits to the host as float32, into memory that is not pinned, and then
calls a sampler in Python for each. Here one reduction on the device finds each row's best token and
whether the row is made of numbers; only rows that somebody has to sample from are copied, in the
type that they have. What pages, prefill and accepted tokens do is the library's own.

Source: ExLlamaV2DynamicGenerator.iterate and iterate_gen in exllamav2/generator/dynamic.py (0.3.2).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import torch
from exllamav2.generator import ExLlamaV2DynamicGenerator
from torch.nn.utils.rnn import pad_sequence

_BROKEN: Final = -1
"""In the place of a token, where a row is not made of numbers."""


class Job(Protocol):
    """What the decode step needs of a job besides the library's own methods."""

    @property
    def takes_best(self) -> bool:
        """True if its next token is simply the likeliest: no row of logits is copied for it."""
        ...

    def receive_best(self, token_id: int) -> None:
        """Notes the likeliest token as the next one."""
        ...

    def receive_broken(self) -> None:
        """Tells it that the model's logits were NaN or infinite."""
        ...

    def receive_logits(self, logits: Any) -> Any:
        """Samples from (1, 1, vocabulary) logits in host memory, in the model's own type."""
        ...


class _Decoded(NamedTuple):
    """A forward pass over all streams.

    Attributes:
        tokens: (streams, queries) int64, host: the best of each row, or `_BROKEN`.
        best: the same as lists.
        rows: by stream, (1, queries, vocabulary) logits in host memory for those who sample.
    """

    tokens: Any
    best: list[list[int]]
    rows: dict[int, Any]


class BatchGenerator(ExLlamaV2DynamicGenerator):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """The library's generator, for jobs that are `Job`s.

    Attributes:
        decodes: False where the coming step only reads prompts.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.decodes = True
        shape = (self.max_batch_size, arguments["max_q_size"], self.padded_vocab_size)
        # The library's own is float32 in pageable memory, which the driver copies through another.
        self.logits_pinned: Any = _host_buffer(shape, torch.half)

    def iterate(self) -> list[Any]:
        """Starts jobs, reads a chunk of every prompt, and decodes; what it returns is not used."""
        results: list[Any] = []
        with torch.inference_mode():
            self.iterate_start_jobs(results)
            for job in self.active_jobs:
                job.prefill(results)
            if self.decodes:
                self.iterate_gen(results, self._drafted(results))
        return results

    def _drafted(self, results: list[Any]) -> Any:
        if self.draft_model:
            return self.iterate_draftmodel_gen(results)
        return self.iterate_ngram_gen(results) if self.use_ngram_draft else None

    def defrag_cache(self) -> None:
        """The library's, which moves pages; not while suspended jobs have some."""
        if not self.referenced_pages:
            super().defrag_cache()

    def iterate_ngram_gen(self, results: list[Any]) -> Any:
        """Drafts, or None: 0.3.2 reads past the end of sequences shorter than its n-grams."""
        shortest = min(
            (len(job.sequences[0].sequence_ids) for job in self.active_jobs),
            default=0,
        )
        if shortest < self.max_ngram - 1:
            return None
        return super().iterate_ngram_gen(results)

    def iterate_gen(self, results: list[Any], draft_tokens: Any = None) -> None:
        """One pass over all streams whose prompts are read, and a token for each.

        Args:
            results: the library's; streams' results are added.
            draft_tokens: (streams, drafts) int64, or None.
        """
        jobs = [job for job in self.active_jobs if job.is_prefill_done()]
        if not jobs:
            return
        device_logits = self._forward(jobs, draft_tokens)
        for filter_, is_mask in self.filter_queue or ():
            start = filter_.background_prepare_logit_mask if is_mask else filter_.background_next
            start(self.filter_pool)
        if self.filter_queue:
            self.filter_queue.clear()
        decoded = self._decoded(jobs, device_logits)
        sampled = self._sample_first(jobs, decoded)
        ended = [
            job
            for at, job in enumerate(jobs)
            if self._receive(
                job, at, decoded, first=sampled.get(at), drafts=draft_tokens, results=results
            )
        ]
        for job in ended:
            job.deallocate_pages()
            self.active_jobs.remove(job)
        if ended and not self.num_remaining_jobs():
            self.defrag_cache()

    def _forward(self, jobs: Sequence[Any], drafts: Any) -> Any:
        """(streams, queries, vocabulary) logits on the device."""
        ids: list[Any] = []
        tables: list[Any] = []
        lengths: list[int] = []
        embeddings: list[Any] = []
        width = 0 if drafts is None else drafts.shape[-1]
        now = time.time()  # the library's clock, which it subtracts from its own
        for at, job in enumerate(jobs):
            if job.time_first_token is None:
                job.time_first_token = now
            (sequence,) = job.sequences
            tables.append(job.get_block_index(sequence, len(sequence.sequence_ids) + width))
            lengths.append(sequence.kv_position)
            ids += job.get_input_ids_list(drafts, at, add_to_cache=True)
            embeddings += job.embeddings
        offsets = None
        if self.model.config.arch.lm.mrope:
            offsets = torch.tensor([job.alt_rope_offset for job in jobs], dtype=torch.int)
        batch = torch.cat(ids, dim=0)
        return self.model.forward_chunk(
            input_ids=batch,
            attn_params=self.get_paged_params(
                len(jobs),
                pad_sequence(tables, batch_first=True),
                torch.tensor(lengths, dtype=torch.int32),
                batch.shape[-1],
                rope_offsets=offsets,
            ),
            cache=self.cache,
            loras=self.current_loras,
            indexed_embeddings=embeddings,
        )["logits"]

    def _decoded(self, jobs: Sequence[Job], logits: Any) -> _Decoded:
        known = min(self.tokenizer.get_vocab_size(), logits.shape[-1])
        peaks, tokens = logits[..., :known].max(-1)  # NaN wins every comparison
        tokens = tokens.where(peaks.isfinite(), _BROKEN).cpu()
        best = tokens.tolist()
        wanting = [
            at for at, job in enumerate(jobs) if not job.takes_best and best[at][0] != _BROKEN
        ]
        rows = self._copied(logits, wanting) if wanting else ()
        return _Decoded(tokens, best, dict(zip(wanting, rows, strict=True)))

    def _copied(self, logits: Any, wanting: Sequence[int]) -> Sequence[Any]:
        """Some streams' logits in host memory; void at the next step."""
        if self.logits_pinned.dtype != logits.dtype:
            self.logits_pinned = _host_buffer(self.logits_pinned.shape, logits.dtype)
        if len(wanting) < logits.shape[0]:
            logits = logits.index_select(0, torch.tensor(wanting, device=logits.device))
        host = self.logits_pinned[: logits.shape[0], : logits.shape[1], : logits.shape[2]]
        # One type on both sides: else torch would copy to pageable memory and convert from there.
        host.copy_(logits)
        rows: Sequence[Any] = host.split(1)
        return rows

    def _sample_first(self, jobs: Sequence[Job], decoded: _Decoded) -> dict[int, Any]:
        """First tokens of those who sample, on threads where there are many and threads pay."""
        rows = decoded.rows
        if self.max_sampling_threads == 1 or len(rows) < self.min_sampling_threads:
            return {}
        pool = self.sampling_pool
        started = {at: pool.submit(jobs[at].receive_logits, row[:, :1]) for at, row in rows.items()}
        return {at: future.result() for at, future in started.items()}

    def _receive(
        self, job: Any, at: int, decoded: _Decoded, *, first: Any, drafts: Any, results: list[Any]
    ) -> bool:
        """Gives a stream its tokens, as far as its drafts were right; True if that was its end."""
        best, row = decoded.best[at], decoded.rows.get(at)
        for place, token_id in enumerate(best):
            sampled = first if place == 0 else None
            if token_id == _BROKEN:
                job.receive_broken()
                return False  # the stream is failed, its pages go with it
            if sampled is None and row is not None and not job.takes_best:
                sampled = job.receive_logits(row[:, place : place + 1])
            if sampled is None:
                job.receive_best(token_id)
                token = decoded.tokens[at : at + 1, place : place + 1]
                sampled = (token, None, None, None, False)
            is_end, token = job.receive_sample(None, *sampled, results, place == 0)
            if is_end:
                return True
            if drafts is None or place == len(best) - 1:
                return False
            if drafts[at, place].item() != token.item():
                self._take_back(job, len(best) - 1 - place)
                return False
            job.accepted_draft_tokens += 1
        return False

    def _take_back(self, job: Any, rejected: int) -> None:
        """Forgets what the cache has of drafts that were wrong."""
        job.rejected_draft_tokens += rejected
        (sequence,) = job.sequences
        while rejected:
            place = sequence.kv_position + rejected
            page = sequence.allocated_pages[(place - 1) // self.page_size]
            back = min(page.kv_position, rejected)
            page.kv_position -= back
            rejected -= back


def _host_buffer(shape: Sequence[int], dtype: Any) -> Any:
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=torch.cuda.is_available())
