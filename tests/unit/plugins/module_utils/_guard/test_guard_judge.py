# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the answers of an engine's API say about it: on both sides of each limit."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.judge import Judge
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.completions import Completion

STALL, HANG = 6.0, 60.0
RIGHT = " Paris, which is also its largest city"
WRONG = " Lyon or so it seems to be"


def answer(text: str = RIGHT, finish: str | None = "length") -> Completion:
    return Completion(text, finish, None, None, None, None, None)


def judge(whole: bool = True) -> Judge:
    """The judge of an API that has answered."""
    made = Judge(STALL, HANG, whole)
    made.health("", 0)
    return made


def says(made: Judge, now: float) -> tuple[str, bool]:
    verdict = made.verdict(now)
    return verdict.bad, verdict.hard


def tell(made: Judge, *texts: str, begin: float = 0, each: float = 3) -> float:
    """Have it judge answers; return when the last one came."""
    for number, text in enumerate(texts):
        made.asked(begin + number * each)
        made.answered(answer(text), "", begin + number * each)
    return begin + (len(texts) - 1) * each


# ── /health ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_engine_that_loads_is_neither_ready_nor_bad() -> None:
    made = Judge(STALL, HANG, True)
    for now in range(1200):
        made.health("/health: Connection refused", now)
    verdict = made.verdict(1200)
    assert (verdict.ready, verdict.bad, verdict.hard) == (False, "", False)
    made.health("", 1201)
    assert made.verdict(1201).ready


def test_one_refused_look_is_chance_and_two_are_none() -> None:
    made = judge()
    made.health("refused", 1)
    assert made.doubtful
    assert says(made, 1) == ("", False)
    made.health("refused", 1.3)
    assert says(made, 1.3) == ("refused", False)
    made.health("", 2)
    assert says(made, 2) == ("", False)
    assert not made.doubtful


def test_what_refuses_for_long_starts_anew() -> None:
    made = judge()
    made.health("refused", 1)
    made.health("refused", 2)
    assert says(made, 1 + HANG) == ("refused", False)
    assert says(made, 1.1 + HANG) == ("refused", True)


# ── progress ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hang_is_soft_then_hard() -> None:
    made = judge()
    made.asked(10)
    for second in range(1, 61):
        made.waiting(7.0, 10 + second)
    assert says(made, 10 + STALL) == ("", False)
    assert says(made, 11 + STALL) == ("it has made no progress for 7 s with a request that waits", False)
    assert not made.verdict(10 + HANG).hard
    assert made.verdict(11 + HANG).hard


def test_a_busy_engine_does_not_hang_however_long_a_request_waits() -> None:
    made = judge()
    made.asked(0)
    for second in range(1, 600):
        made.waiting(float(second), second)
        assert says(made, second) == ("", False)


def test_a_counter_that_is_unknown_for_a_while_is_no_progress_and_no_end() -> None:
    made = judge()
    made.asked(0)
    made.waiting(5.0, 1)
    made.waiting(None, 3)
    made.waiting(5.0, 5)
    assert says(made, 7)[0].startswith("it has made no progress for 7 s")
    made.waiting(6.0, 8)
    assert says(made, 8) == ("", False)


def test_an_engine_that_counts_nothing_is_never_started_anew_for_it() -> None:
    made = judge()
    made.asked(0)
    made.waiting(None, 1)
    assert says(made, 5 * STALL) == ("", False)
    assert says(made, 10 * HANG) == ("a request has waited for 600 s", False)


def test_the_longest_time_after_which_it_went_on_is_learned() -> None:
    made = judge()
    made.asked(0)
    made.waiting(1.0, 1)
    made.waiting(2.0, 20)
    made.answered(answer(), "", 21)
    made.asked(100)
    made.waiting(3.0, 101)
    assert says(made, 100 + 40) == ("", False)
    assert says(made, 100 + 41)[0].startswith("it has made no progress for 41 s")
    assert not made.verdict(100 + 60).hard
    assert made.verdict(100 + 61).hard


def test_from_a_request_that_failed_nothing_is_learned() -> None:
    made = judge()
    made.asked(0)
    made.waiting(1.0, 1)
    made.answered(None, "a request fails: reset", 50)
    made.asked(100)
    made.waiting(1.0, 101)
    assert says(made, 107)[0].startswith("it has made no progress for 7 s")


def test_a_request_that_breaks_off_does_not_end_a_hang() -> None:
    made = judge()
    made.asked(0)
    made.waiting(1.0, 1)
    made.answered(None, "a request fails: reset", 10)
    assert says(made, 10) == ("it has made no progress for 10 s with a request that waits", False)
    made.answered(answer(), "", 11)
    assert says(made, 11) == ("", False)


def test_requests_that_all_break_off_start_it_anew() -> None:
    made = judge()
    for begin in range(0, 80, 10):
        made.asked(begin)
        made.waiting(1.0, begin + 1)
        assert not made.verdict(begin + 5).hard or begin > HANG
        made.answered(None, "a request fails: reset", begin + 10)
    assert made.verdict(80).hard


def test_nothing_stalls_where_no_request_waits() -> None:
    made = judge()
    tell(made, RIGHT)
    assert says(made, 1000) == ("", False)


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "its answer is none: it is empty"),
        ("!" * 40, "its answer is none: it repeats '!' 40 times"),
        (WRONG, f"it answers {WRONG!r} to what it has answered with 'Paris, which'"),
    ],
)
def test_two_of_three_wrong_answers_make_it_bad(text: str, why: str) -> None:
    made = judge()
    tell(made, RIGHT, text)
    assert made.doubtful
    assert says(made, 3) == ("", False)
    tell(made, text, begin=6)
    assert says(made, 6) == (why, False)


def test_wrong_answers_start_it_anew_if_there_are_enough_for_long_enough() -> None:
    made = judge()
    tell(made, RIGHT)
    # Looks follow each other quickly.
    last = tell(made, *["!" * 40] * 5, begin=10, each=0.3)
    assert not made.verdict(last).hard
    assert not made.verdict(10 + HANG).hard
    assert made.verdict(10.1 + HANG).hard
    # Few of them, but for long.
    slow = judge()
    tell(slow, RIGHT, *["!" * 40] * 4, each=HANG)
    assert not slow.verdict(5 * HANG).hard


def test_one_right_answer_ends_the_row() -> None:
    made = judge()
    tell(made, RIGHT, *[""] * 4, RIGHT, *[""] * 4, each=20)
    assert not made.verdict(200).hard


def test_a_failed_request_is_a_wrong_answer() -> None:
    made = judge()
    for now in (1.0, 2.0):
        made.asked(now)
        made.answered(None, "it answers 500", now)
    assert says(made, 2) == ("it answers 500", False)


def test_what_says_nothing_about_the_engine_is_not_wrong() -> None:
    made = judge()
    for now in (1.0, 2.0, 3.0):
        made.answered(None, "", now)
    assert says(made, 3) == ("", False)


def test_a_differing_text_is_right_once_the_first_one_has_come_again() -> None:
    made = judge()
    tell(made, RIGHT, WRONG, WRONG)
    assert says(made, 6)[0]
    # The same start gives both: it depends on what else it computes.
    tell(made, RIGHT, RIGHT, WRONG, WRONG, WRONG, begin=9)
    assert says(made, 30) == ("", False)


def test_of_endless_nonsense_little_is_remembered() -> None:
    made = judge()
    tell(made, RIGHT, *(f" word{number} is what it says" for number in range(1000)))
    assert len(made._other) < 100
    assert made.verdict(3000).hard


def test_an_answer_that_breaks_off_is_wrong() -> None:
    made = judge()
    for now in (1.0, 2.0):
        made.answered(answer(finish="abort"), "", now)
    assert says(made, 2) == ("its answer ends with abort", False)
    for finish in ("stop", None, "length"):
        made.answered(answer(finish=finish), "", 3)
    assert says(made, 3) == ("", False)


def test_of_a_prefiller_one_token_is_compared_even_if_it_is_empty() -> None:
    made = judge(whole=False)
    tell(made, "", "", "")
    assert says(made, 6) == ("", False)
    tell(made, " Paris", " Paris", begin=9)
    assert says(made, 12)[0] == "it answers ' Paris' to what it has answered with ''"


def test_words_after_the_first_two_are_not_compared() -> None:
    made = judge()
    tell(made, " Paris, which is big", " Paris, which was founded", " Paris, which has")
    assert says(made, 6) == ("", False)


def test_nonsense_of_a_prefiller_stays_nonsense_though_it_was_right_afterwards() -> None:
    made = judge(whole=False)
    end = tell(made, " Paris", " Lans", " Lans", " Paris", " Paris", " Paris", " Lans", " Lans")
    assert says(made, end)[0] == "it answers ' Lans' to what it has answered with 'Paris'"
    # One that differed once was chance: the load decides which of two is chosen.
    made = judge(whole=False)
    end = tell(made, " Paris", " The", " Paris", " The", " The")
    assert says(made, end) == ("", False)
