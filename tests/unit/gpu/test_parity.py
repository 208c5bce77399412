"""Which prompts the proof compares with transformers."""

import pytest

from gpu import bench_setting, report
from gpu.parity import QUESTIONS, WANTED, Answer, clear_ones


def test_prompts_with_a_close_choice_are_left_out() -> None:
    close, clear = Answer([5, 6], [3.0, 0.09]), Answer([5], [3.0, 0.1])

    assert clear_ones([close, clear, close, clear]) == [1, 3]
    assert clear_ones([clear] * (WANTED + 5)) == list(range(WANTED))


def test_three_times_as_many_questions_are_asked_as_are_wanted() -> None:
    assert len(set(QUESTIONS)) >= 3 * WANTED


@pytest.mark.parametrize(("identical", "code"), [(WANTED, 0), (WANTED - 1, 1)])
def test_a_prompt_that_parts_from_a_clear_answer_fails_the_proof(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], identical: int, code: int
) -> None:
    parity = {
        "model": "m", "asked": 60, "dropped_for_a_close_choice": 31, "wanted": WANTED,
        "prompts": WANTED, "identical": identical,
    }  # fmt: skip
    kept = {"parity": parity}.get
    for module in (bench_setting, report):
        monkeypatch.setattr(module, "kept", kept)
    monkeypatch.setattr("sys.argv", ["report"])

    assert report.main() == code
    assert "31 of 60 had a choice within 0.1" in capsys.readouterr().out
