"""Greedy token parity of the engine with transformers on prompts whose every choice is clear.

16-bit logits are up to 0.016 apart, and how they are rounded depends on the kernels and on the
batch: where the best two tokens are closer than that, either is right. So the same weights are
asked in float32, and only prompts whose every choice is clearer than `CLEAR` are compared.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from gpu.bench_setting import CLEAR, DEVICE, EMULATED, emulate, keep, models

QUESTIONS: Final = (
    "What is the capital of France?", "Name three fruits.", "Write a haiku about rain.",
    "Explain gravity to a child.", "2+2=?", "Translate 'good morning' to Spanish.",
    "Who wrote Hamlet?", "List the planets.", "What is Python?", "Give me a joke.",
    "Define entropy.", "What is DNA?", "Name a river in Africa.", "What causes tides?",
    "Write a SQL query that counts rows.", "What is a prime number?",
    "Summarise Romeo and Juliet.", "How do I boil an egg?", "What is the speed of light?",
    "Say hello in French.", "What is the capital of Japan?", "Who painted the Mona Lisa?",
    "What colour is the sky?", "How many days has a week?", "What is the largest ocean?",
    "Name a mammal that flies.", "What do bees make?", "What is H2O?", "Count from one to ten.",
    "What is the opposite of hot?", "Who was Albert Einstein?", "What is photosynthesis?",
    "Name the seasons.", "What is the boiling point of water?", "Where is the Eiffel Tower?",
    "What is a verb?", "Spell the word 'house'.", "What is the square root of 81?",
    "Which animal barks?", "What is the currency of the United Kingdom?",
    "How many legs has a spider?", "What is the tallest mountain?", "Name two primary colours.",
    "What language is spoken in Brazil?", "What is the freezing point of water?",
    "Who discovered penicillin?", "What is an island?", "Write one sentence about cats.",
    "What is 7 times 6?", "How many minutes has an hour?", "What is the sun?",
    "Name a metal.", "What is a triangle?", "Which month follows March?",
    "What is the capital of Italy?", "What do plants need to grow?", "What is a computer?",
    "Name a string instrument.", "What is the Moon?", "Who wrote the Odyssey?",
    "What is the capital of Spain?", "What is the capital of Germany?", "What is 10 plus 5?",
    "What is 9 minus 4?", "What is the chemical symbol of gold?", "How many continents are there?",
    "What is the largest planet?", "Name a fruit that is yellow.", "What is a noun?",
    "What is the first month of the year?", "Which planet is called the red planet?",
    "Who was the first president of the United States?", "How many sides has a square?",
    "What is the opposite of big?", "What is the plural of mouse?", "What do cows drink?",
    "What is the capital of Egypt?", "What is a synonym of happy?", "Name a bird.",
    "What is the longest river?", "What gas do people breathe?", "What is an atom?",
    "What is the past tense of go?", "Name a month with 31 days.", "What is gravity?",
    "How many letters has the English alphabet?", "What is the square of 5?",
    "What colour is grass?", "What is the smallest prime number?", "Where do fish live?",
)  # fmt: skip
WANTED: Final = 20
NEW_TOKENS: Final = 16 if EMULATED else 32


class Answer(NamedTuple):
    """A greedy answer.

    Attributes:
        token_ids: without the token that ends it.
        margins: of each choice, the end too: how much likelier the best was than the second, in log
            odds.
    """

    token_ids: list[int]
    margins: list[float]

    @property
    def is_clear(self) -> bool:
        """No choice was close."""
        return min(self.margins) >= CLEAR


def main() -> None:
    """Keeps on how many prompts the tokens are the same, and how far the others agree."""
    if importlib.util.find_spec("transformers") is None:
        keep("parity", {"skipped": "transformers is not installed"})
        return
    name = next(name for name in models() if name.endswith("-fp16"))
    path = models()[name]
    asked = [_prompt(path, question) for question in QUESTIONS]
    answers = _transformers(path, asked)
    clear = clear_ones(answers)
    emulate()
    theirs = [answers[at].token_ids for at in clear]
    ours = _engine(path, [asked[at] for at in clear])
    agree = [_common(a, b) for a, b in zip(ours, theirs, strict=True)]
    keep(
        "parity",
        {
            "model": name,
            "asked": len(asked),
            "dropped_for_a_close_choice": sum(not answer.is_clear for answer in answers),
            "wanted": WANTED,
            "prompts": len(clear),
            "identical": sum(a == b for a, b in zip(ours, theirs, strict=True)),
            "agreeing_tokens": agree,
            "lengths": [len(tokens) for tokens in theirs],
            "least_margin": round(min(min(answers[at].margins) for at in clear), 4),
        },
    )


def clear_ones(answers: Sequence[Answer]) -> list[int]:
    """Which answers are compared: the first `WANTED` without a close choice."""
    return [at for at, answer in enumerate(answers) if answer.is_clear][:WANTED]


def _prompt(path: Any, question: str) -> list[int]:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _transformers(path: Any, prompts: list[list[int]]) -> list[Answer]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(DEVICE)
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
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = [row[0].float().topk(2).values for row in made.logits]
        said = made.sequences[0, len(prompt) :].tolist()
        answers.append(
            Answer(
                [token for token in said if token != 2],  # noqa: PLR2004
                [float(first - second) for first, second in best],
            )
        )
    del model
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    return answers


def _engine(path: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Tokens of each answer."""
    from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task
    from services.neuron.engines import create_engine
    from tests.contract.engine.driving import run, tokens
    from tests.engines.exllamav2.loading_models import load

    model = load(create_engine("exllamav2"), path, max_context_tokens=2048, max_sequences=WANTED)
    stop = StopParams(max_tokens=NEW_TOKENS)
    tasks = [
        Task(n, "i", Prompt(token_ids=tuple(p)), SamplingParams(temperature=0), stop)
        for n, p in enumerate(prompts, 1)
    ]
    events = run(model, *tasks)
    said = [tokens(events, task) for task in tasks]
    model.close()
    return said


def _common(one: list[int], other: list[int]) -> int:
    differing = (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


if __name__ == "__main__":
    main()
