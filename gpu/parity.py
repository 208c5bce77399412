"""Greedy token parity of the engine with transformers on 20 prompts, 16-bit weights."""

from __future__ import annotations

import importlib.util
from typing import Any

from gpu.bench_setting import DEVICE, EMULATED, emulate, keep, models

QUESTIONS = (
    "What is the capital of France?", "Name three fruits.", "Write a haiku about rain.",
    "Explain gravity to a child.", "2+2=?", "Translate 'good morning' to Spanish.",
    "Who wrote Hamlet?", "List the planets.", "What is Python?", "Give me a joke.",
    "Define entropy.", "What is DNA?", "Name a river in Africa.", "What causes tides?",
    "Write a SQL query that counts rows.", "What is a prime number?",
    "Summarise Romeo and Juliet.", "How do I boil an egg?", "What is the speed of light?",
    "Say hello in French.",
)  # fmt: skip
NEW_TOKENS = 16 if EMULATED else 32


def main() -> None:
    """Keeps on how many prompts the tokens are the same, and how far the others agree."""
    if importlib.util.find_spec("transformers") is None:
        keep("parity", {"skipped": "transformers is not installed"})
        return
    name = next(name for name in models() if name.endswith("-fp16"))
    path = models()[name]
    prompts = [_prompt(path, question) for question in QUESTIONS]
    theirs = _transformers(path, prompts)
    emulate()
    ours, margins = _engine(path, prompts)
    agree = [_common(a, b) for a, b in zip(ours, theirs, strict=True)]
    keep(
        "parity",
        {
            "model": name,
            "prompts": len(prompts),
            "identical": sum(a == b for a, b in zip(ours, theirs, strict=True)),
            "agreeing_tokens": agree,
            "lengths": [len(tokens) for tokens in theirs],
            # Where they part: how much likelier the first choice was than the second. Next to
            # nothing is a tie that half precision decides; more is an error.
            "margin_where_they_part": [
                round(margins[n][at], 4)
                for n, at in enumerate(agree)
                if ours[n] != theirs[n] and at < len(margins[n])
            ],
        },
    )


def _prompt(path: Any, question: str) -> list[int]:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _transformers(path: Any, prompts: list[list[int]]) -> list[list[int]]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float16).to(DEVICE)
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=DEVICE)
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=2,
            eos_token_id=2,
        )
        answers.append([token for token in made[0, len(prompt) :].tolist() if token != 2])  # noqa: PLR2004
    del model
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    return answers


def _engine(path: Any, prompts: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
    """Tokens of each answer, and the log odds of its every token against the runner-up."""
    from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task
    from services.neuron.engines import create_engine
    from tests.contract.engine.driving import deltas, run, tokens
    from tests.engines.exllamav2.loading_models import load

    model = load(create_engine("exllamav2"), path, max_context_tokens=2048, max_sequences=20)
    stop = StopParams(max_tokens=NEW_TOKENS)
    tasks = [
        Task(
            n, "i", Prompt(token_ids=tuple(p)), SamplingParams(temperature=0), stop, top_logprobs=2
        )
        for n, p in enumerate(prompts, 1)
    ]
    events = run(model, *tasks)
    said = [tokens(events, task) for task in tasks]
    margins = [
        [
            one.alternatives[0].logprob - one.alternatives[1].logprob
            for delta in deltas(events, task)
            for one in delta.logprobs
        ]
        for task in tasks
    ]
    model.close()
    return said, margins


def _common(one: list[int], other: list[int]) -> int:
    differing = (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


if __name__ == "__main__":
    main()
