# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the answers of an engine's API say about it: on both sides of each limit."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard.judge import (
    FIRST,
    Judge,
    Verdict,
    beginning,
)
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


LATE = "/health has no answer within 2 s"


def test_what_is_late_is_bad_and_never_starts_anew() -> None:
    """It may be busy with all it has to answer."""
    made = judge()
    made.health(LATE, 1, slow=True)
    assert says(made, 1) == ("", False)
    for now in range(2, 20 * int(HANG), 2):
        made.health(LATE, now, slow=True)
        assert says(made, now) == (LATE, False)
    made.health("", 20 * HANG)
    assert says(made, 20 * HANG) == ("", False)


def test_refusals_count_from_the_last_late_answer() -> None:
    made = judge()
    for now in range(0, 2 * int(HANG), 2):
        made.health(LATE, now, slow=True)
    last = 2 * HANG - 2
    made.health("refused", last + 1)
    assert says(made, last + 1) == ("refused", False)
    made.health("refused", last + HANG)
    assert says(made, last + HANG) == ("refused", False)
    assert says(made, last + HANG + 0.1) == ("refused", True)


def test_a_late_answer_ends_a_row_of_refusals() -> None:
    made = judge()
    for now in range(1, int(HANG), 10):
        made.health("refused", now)
    made.health(LATE, HANG, slow=True)
    assert says(made, 2 * HANG) == (LATE, False)
    made.health("refused", HANG + 3)
    assert says(made, HANG + 3) == ("refused", False)


# ── progress ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hang_is_soft_then_hard() -> None:
    made = judge()
    tell(made, RIGHT)
    made.asked(10)
    for second in range(1, 61):
        made.waiting(7.0, 10 + second)
    assert says(made, 10 + STALL) == ("", False)
    assert says(made, 11 + STALL) == ("it has made no progress for 7 s with a request that waits", False)
    assert not made.verdict(10 + HANG).hard
    assert made.verdict(11 + HANG).hard


def test_with_its_first_request_an_engine_hangs_only_after_long() -> None:
    """It may still have something to compile."""
    made = judge()
    made.asked(10)
    made.waiting(7.0, 11)
    assert says(made, 11 + STALL) == ("it has made no progress for 7 s with a request that waits", False)
    assert not made.verdict(10 + FIRST * HANG).hard
    assert made.verdict(10.1 + FIRST * HANG).hard


@pytest.mark.parametrize("why", ["it answers 500", "a request fails: reset"])
def test_a_failure_is_no_first_answer(why: str) -> None:
    made = judge()
    made.asked(0)
    made.answered(None, why, 1)
    made.asked(10)
    made.waiting(7.0, 11)
    assert not made.verdict(11 + HANG).hard
    assert made.verdict(10.1 + FIRST * HANG).hard


def test_a_request_that_was_not_taken_says_nothing() -> None:
    made = judge()
    for now in range(0, 10 * int(HANG), 2):
        made.asked(now)
        made.not_taken(now + 2)
        assert says(made, now + 2) == ("", False)
    # Nor is it the first answer.
    made.asked(1000)
    made.waiting(7.0, 1001)
    assert not made.verdict(1001 + HANG).hard
    assert made.verdict(1000.1 + FIRST * HANG).hard


def test_a_request_that_was_not_taken_ends_neither_a_hang_nor_a_row_of_wrong_answers() -> None:
    made = judge()
    made.asked(0)
    made.waiting(1.0, 1)
    made.answered(None, "a request fails: reset", 10)
    made.asked(11)
    made.not_taken(13)
    assert says(made, 13)[0].startswith("it has made no progress for 10 s")
    wrong = judge()
    last = tell(wrong, RIGHT, *["!" * 40] * 5, each=20)
    wrong.asked(last + 1)
    wrong.not_taken(last + 3)
    assert wrong.verdict(last + 3).hard


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


def test_an_answer_that_breaks_off_is_wrong() -> None:
    made = judge()
    for now in (1.0, 2.0):
        made.answered(answer(finish="abort"), "", now)
    assert says(made, 2) == ("its answer ends with abort", False)
    for finish in ("stop", None, "length"):
        made.answered(answer(finish=finish), "", 3)
    assert says(made, 3) == ("", False)


# ── other answers than before ─────────────────────────────────────────────────────────────────────────────


OTHER = f"it answers {WRONG!r} to what it has answered with 'paris'"


def test_two_of_three_other_answers_are_a_doubt_and_no_fault() -> None:
    made = judge()
    tell(made, RIGHT, WRONG)
    assert made.doubtful
    assert made.verdict(3).doubt == ""
    tell(made, WRONG, begin=6)
    assert not made.doubtful
    assert made.verdict(6) == Verdict(seen=True, ready=True, doubt=OTHER)
    tell(made, RIGHT, begin=9)
    assert made.verdict(9).doubt == OTHER
    tell(made, RIGHT, begin=12)
    assert made.verdict(12).doubt == ""


def test_other_answers_never_start_it_anew_however_many_come_for_however_long() -> None:
    made = judge()
    tell(made, RIGHT, *[WRONG] * 100, each=HANG)
    verdict = made.verdict(101 * HANG)
    assert (verdict.bad, verdict.hard, verdict.doubt) == ("", False, OTHER)


def test_what_a_canary_has_found_right_is_right_from_then_on() -> None:
    made = judge()
    tell(made, RIGHT, WRONG, WRONG)
    made.accept()
    assert (made.verdict(7).doubt, made.doubtful) == ("", False)
    tell(made, WRONG, RIGHT, WRONG, WRONG, begin=9)
    assert made.verdict(30).doubt == ""
    # And nothing else is.
    tell(made, " Rome", " Rome", begin=33)
    assert made.verdict(36).doubt.startswith("it answers ' Rome'")


def test_what_was_never_doubted_is_accepted_as_it_is() -> None:
    made = judge()
    made.accept()
    tell(made, RIGHT, WRONG, WRONG)
    assert made.verdict(6).doubt == OTHER


def test_a_canary_that_passes_ends_no_row_of_nonsense() -> None:
    made = judge()
    tell(made, RIGHT, *["!" * 40] * 5, each=20)
    made.accept()
    tell(made, *["!" * 40] * 2, begin=120)
    assert made.verdict(130).hard


def test_an_other_answer_comes_again_and_again_without_becoming_right() -> None:
    """Only a canary says whether it is."""
    made = judge()
    tell(made, RIGHT, WRONG, RIGHT, RIGHT, WRONG, WRONG)
    assert made.verdict(20).doubt == OTHER


def test_nonsense_and_another_answer_are_a_doubt_together() -> None:
    made = judge()
    tell(made, RIGHT, WRONG, "")
    verdict = made.verdict(6)
    assert (verdict.bad, verdict.doubt) == ("", "its answer is none: it is empty")
    tell(made, "", begin=9)
    verdict = made.verdict(9)
    assert (verdict.bad, verdict.doubt) == ("its answer is none: it is empty", "")


def test_of_endless_other_answers_little_is_remembered() -> None:
    made = judge()
    tell(made, RIGHT, *(f" word{number} is what it says" for number in range(1000)))
    assert len(made._other) < 100
    assert not made.verdict(3000).hard


def test_of_a_prefiller_one_token_is_compared_even_if_it_is_empty() -> None:
    made = judge(whole=False)
    tell(made, "", "", "")
    assert made.verdict(6) == Verdict(seen=True, ready=True)
    tell(made, " Paris", " Paris", begin=9)
    assert made.verdict(12).doubt == "it answers ' Paris' to what it has answered with ''"


def test_words_after_the_first_are_not_compared() -> None:
    made = judge()
    tell(made, " Paris, which is big", " Paris. It was", ' "paris" and', " PARIS!")
    assert made.verdict(9) == Verdict(seen=True, ready=True)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (" Paris, which", "paris"),
        ("**Paris**", "paris"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("it's so", "it's"),
        ("巴黎。 是", "巴黎。"),
        # Punctuation alone is better than nothing.
        ("... and", "..."),
        ("", ""),
        (" \n\t", ""),
    ],
)
def test_the_beginning_is_the_first_word_without_punctuation_and_case(text: str, word: str) -> None:
    assert beginning(text) == word


# ── hangs and answers together ────────────────────────────────────────────────────────────────────────────


def test_a_request_that_breaks_off_before_it_has_stalled_is_no_hang() -> None:
    made = judge()
    made.asked(0)
    made.waiting(1.0, 1)
    made.answered(None, "a request fails: reset", STALL)
    assert says(made, 10 * HANG) == ("", False)


def test_a_hang_is_told_though_answers_were_others() -> None:
    made = judge()
    tell(made, RIGHT, WRONG, WRONG)
    made.asked(10)
    made.waiting(1.0, 11)
    verdict = made.verdict(17)
    assert (verdict.bad, verdict.doubt) == ("it has made no progress for 7 s with a request that waits", "")


def test_a_hang_that_broke_off_is_over_with_any_answer() -> None:
    made = judge()
    tell(made, RIGHT)
    made.asked(10)
    made.waiting(1.0, 11)
    made.answered(None, "a request fails: reset", 20)
    made.asked(21)
    made.waiting(1.0, 22)
    # The next one waits: nothing has shown that the hang is over.
    assert says(made, 22)[0].startswith("it has made no progress for 10 s")
    made.answered(answer(WRONG), "", 23)
    assert says(made, 23) == ("", False)
