from __future__ import annotations

import pytest

from cortex.v1 import generation_pb2 as g
from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.events import Ended, EndReason, Queued, TokenLogprob
from services.neuron.engine_api.task import Constraint, ConstraintKind, SamplingParams
from services.neuron.serving import convert

OWN = SamplingParams(temperature=0.6, top_k=20, top_p=0.95, seed=None)


def test_the_requests_values_win_then_the_models_then_those_of_a_model_without_advice():
    asked = g.Sampling(temperature=0, seed=7, logit_bias={3: -100.0})

    settled = convert.sampling(asked, OWN)

    assert settled == SamplingParams(
        temperature=0, top_k=20, top_p=0.95, seed=7, logit_bias={3: -100.0}
    )
    assert convert.sampling(g.Sampling(), None) == convert.UNADVISED


def test_zero_is_a_value_and_not_unset():
    assert convert.sampling(g.Sampling(top_k=0), OWN).top_k == 0


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"typical_p": 0.0},
        {"repetition_penalty": 0.0},
        {"frequency_penalty": float("inf")},
        {"presence_penalty": float("nan")},
    ],
    ids=str,
)
def test_values_out_of_range_name_their_field(asked):
    with pytest.raises(FleetError) as refused:
        convert.sampling(g.Sampling(**asked), None)

    assert refused.value.field == f"sampling.{next(iter(asked))}"


@pytest.mark.parametrize(
    "asked", [{"temperature": 0}, {"top_p": 1}, {"min_p": 0}, {"frequency_penalty": -2}], ids=str
)
def test_values_at_the_edge_are_allowed(asked):
    settled = convert.sampling(g.Sampling(**asked), None)

    assert getattr(settled, next(iter(asked))) == next(iter(asked.values()))


def test_unset_max_tokens_is_no_limit():
    assert convert.stop(g.StopRules()).max_tokens is None


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        (g.OutputConstraint(), None),
        (
            g.OutputConstraint(json_object=g.AnyJsonObject()),
            Constraint(ConstraintKind.JSON_OBJECT),
        ),
        (g.OutputConstraint(json_schema="{}"), Constraint(ConstraintKind.JSON_SCHEMA, "{}")),
        (g.OutputConstraint(regex="a+"), Constraint(ConstraintKind.REGEX, "a+")),
        (g.OutputConstraint(grammar="start: A"), Constraint(ConstraintKind.LARK, "start: A")),
    ],
)
def test_constraints_keep_their_language(asked, made):
    assert convert.constraint(asked) == made


def test_logprobs_that_nobody_asked_for_are_none():
    assert convert.top_logprobs(g.GenerateRequest()) is None
    assert convert.top_logprobs(g.GenerateRequest(top_logprobs=0)) == 0


def test_an_unknown_wait_has_no_eta():
    assert not convert.queued(Queued(1, 3)).queued.HasField("eta")
    assert convert.queued(Queued(1, 3, 1.5)).queued.eta.ToMilliseconds() == 1500


def test_alternatives_are_carried_along():
    rival = TokenLogprob(2, b"\xff", -3.0)

    made = convert.logprob(TokenLogprob(1, b"a", -0.1, (rival,)))

    assert made.alternatives[0].text == b"\xff"


def test_every_end_has_its_word():
    assert {convert.finish_reason(reason) for reason in EndReason} == {
        g.FINISH_REASON_END_OF_TURN,
        g.FINISH_REASON_STOP_STRING,
        g.FINISH_REASON_MAX_TOKENS,
    }


def test_timings_keep_fractions_of_a_second():
    made = convert.timings(Ended(1, EndReason.END_OF_TURN, "", 1, 0.25, 1.5, 2.0, 3))

    assert made.queued.ToMilliseconds() == 250
    assert made.prefill.ToMilliseconds() == 1500
    assert made.accepted_draft_tokens == 3


@pytest.mark.parametrize(
    ("strings", "field"),
    [
        (["a", ""], "stop.stop_strings.1"),
        (["a" * 1025], "stop.stop_strings.0"),
        (["a"] * 65, "stop.stop_strings"),
    ],
)
def test_stop_strings_are_bounded(strings: list[str], field: str):
    with pytest.raises(FleetError) as refused:
        convert.stop(g.StopRules(stop_strings=strings))

    assert refused.value.field == field
    assert refused.value.reason is Reason.BAD_REQUEST


def test_a_stop_string_may_have_a_thousand_characters():
    assert convert.stop(g.StopRules(stop_strings=["a" * 1024])).strings == ("a" * 1024,)
