import numpy as np
import pytest

from services.neuron.engine_api.task import SamplingParams
from services.neuron.engines.exllamav2.batch.logit_rules import LogitRules
from services.neuron.engines.exllamav2.batch.sampling import PositionalRandom, settings

# Every field of ExLlamaV2Sampler.Settings 0.3.2 but the state of its DRY trie.
FIELDS = {
    "token_repetition_penalty", "token_repetition_range", "token_repetition_decay",
    "token_frequency_penalty", "token_presence_penalty", "temperature", "smoothing_factor",
    "min_temp", "max_temp", "temp_exponent", "top_k", "top_p", "top_a", "min_p", "tfs", "typical",
    "skew", "temperature_last", "mirostat", "mirostat_tau", "mirostat_eta", "mirostat_mu",
    "token_bias", "cfg_scale", "post_sampling_hooks", "dry_allowed_length", "dry_base",
    "dry_multiplier", "dry_sequence_breakers", "dry_range", "dry_max_ngram", "xtc_probability",
    "xtc_threshold", "xtc_ignore_tokens",
}  # fmt: skip


def test_every_field_is_set() -> None:
    assert settings(SamplingParams()).keys() == FIELDS


def test_the_default_is_neutral() -> None:
    made = settings(SamplingParams())

    assert (made["temperature"], made["top_k"], made["top_p"], made["min_p"]) == (1.0, 0, 0.0, 0.0)
    assert (made["typical"], made["token_repetition_penalty"]) == (0.0, 1.0)


def test_greedy_truncates_to_one_and_nothing_else() -> None:
    made = settings(SamplingParams(temperature=0, top_p=0.5, min_p=0.3, typical_p=0.2, top_k=40))

    assert (made["top_k"], made["top_p"], made["min_p"], made["typical"]) == (1, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("params", "top_k", "top_p"),
    [
        (SamplingParams(top_p=0.9), 1000, 0.9),
        (SamplingParams(top_p=0.9, top_k=40), 40, 0.9),
        (SamplingParams(top_p=1.0), 0, 0.0),
    ],
)
def test_top_p_alone_gets_a_bound(params: SamplingParams, top_k: int, top_p: float) -> None:
    made = settings(params)

    assert (made["top_k"], made["top_p"]) == (top_k, top_p)


def test_penalties_of_the_output_are_not_left_to_the_library() -> None:
    made = settings(SamplingParams(frequency_penalty=1.0, presence_penalty=1.0))

    assert (made["token_frequency_penalty"], made["token_presence_penalty"]) == (0.0, 0.0)


def draws(seed: int, position: int, count: int) -> list[float]:
    chance = PositionalRandom(seed, position=position)
    return [chance.random() for _ in range(count)]


def test_chance_can_be_resumed_anywhere() -> None:
    whole = draws(5, 0, 20)

    assert [draws(5, n, 20 - n) for n in (1, 7, 19)] == [whole[1:], whole[7:], whole[19:]]


def test_chance_depends_on_the_seed_and_is_even() -> None:
    many = draws(-3, 0, 4000)

    assert draws(1, 0, 3) != draws(2, 0, 3)
    assert all(0 <= one < 1 for one in many)
    assert abs(np.mean(many) - 0.5) < 0.02
    assert abs(np.var(many) - 1 / 12) < 0.005


def row(rules: LogitRules, banned: tuple[int, ...] = ()) -> list[float]:
    logits = np.arange(6, dtype=np.float32)
    rules.apply(logits, banned=banned)
    values: list[float] = logits.tolist()
    return values


def test_a_bias_is_added_and_a_hundred_below_bans() -> None:
    rules = LogitRules(SamplingParams(logit_bias={1: 2.5, 2: -100.0, 99: 4.0}), (), vocabulary=6)

    assert row(rules) == [0, 3.5, -np.inf, 3, 4, 5]


def test_frequency_counts_and_presence_does_not() -> None:
    params = SamplingParams(frequency_penalty=0.5, presence_penalty=1.0)
    rules = LogitRules(params, (3, 3), vocabulary=6)
    rules.count(5)

    assert row(rules) == [0, 1, 2, 1, 4, 3.5]
    rules.count(3)
    assert row(rules)[3] == 0.5


def test_the_banned_stay_above_the_impossible() -> None:
    rules = LogitRules(SamplingParams(), (3, 3), vocabulary=6)

    assert row(rules, banned=(5,)) == [0, 1, 2, 3, 4, np.float32(-1e30)]
