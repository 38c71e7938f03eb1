# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the answers of an engine's API say about it. No request is sent here, and no clock is read.

`/health` answers 200 while an engine hangs (vllm-ascend issue 13648) or answers nonsense, so requests are
sent, and their text is compared with the first that this start of the engine has given. A busy engine may
have no room for a request for long: as long as its counters grow, it does not hang.
"""

from __future__ import annotations

from typing import NamedTuple

from .._serving.completions import Completion, degenerate

# Answers that are considered, and how many of them make an engine bad; so many wrong ones in a row, for as
# long as a hang, make it start anew. Only the first is followed by another request at once.
LAST, BAD, SURE = 3, 2, 5
# Beginnings that are remembered besides the right ones.
OTHERS = 20
# What may follow the word that is compared, or not, as the load decides.
PUNCTUATION = ".,;:!?*_\"'()[]"
# Failed looks at /health before they count: a connection may be refused by chance.
REFUSALS = 2
# Until its first answer an engine hangs only after so many times as long.
FIRST = 10


class Verdict(NamedTuple):
    """What is known of an API.

    seen: whether it has been asked at all.
    ready: whether it has answered since its start.
    bad: what is wrong with it; empty if nothing is. It then gets no more requests.
    hard: whether that lasts for so long that the engine is to start anew.
    doubt: that it answers otherwise than before, which a canary has to judge; empty if it does not.
    """

    seen: bool = False
    ready: bool = False
    bad: str = ""
    hard: bool = False
    doubt: str = ""


class Fault(NamedTuple):
    """What an answer has against it: ``wrong``, or that it is ``other`` than before; or nothing."""

    wrong: str = ""
    other: str = ""


class Judge:
    """Judges one API since the start of its engine.

    stall, hang: seconds without progress after which an engine is bad, and is to start anew.
    whole: whether whole answers are compared; of a prefiller, which is asked for one token, only that they
        stay the same.
    """

    def __init__(self, stall: float, hang: float, whole: bool) -> None:
        self._stall, self._hang, self._whole = stall, hang, whole
        self._seen = self._ready = False
        self._refused: list[str] = []
        self._refused_since, self._slow = 0.0, False
        # Beginnings of answers that are right, those that differ, and whether the last answers were right.
        self._right: set[str] = set()
        self._other: set[str] = set()
        self._answers: list[Fault] = []
        self._odd_in_a_row = self._wrong_in_a_row = 0
        self._wrong_since = 0.0
        # Since when it makes no progress with a request that waits; the longest time after which it went on.
        self._stalled_since: float | None = None
        self._progress: float | None = None
        self._longest = 0.0
        self._has_answered = False
        # That it made no progress, until it answers again: a request that breaks off then says nothing new.
        self._stuck = ""

    def health(self, why: str, now: float, slow: bool = False) -> None:
        """Note a look at /health: what was wrong, or empty; and whether that is only that it came late."""
        self._seen = True
        self._slow = slow
        if not why:
            self._ready = True
            self._refused = []
        elif self._ready:
            if slow or not self._refused:
                self._refused_since = now
            self._refused = [*self._refused, why][-REFUSALS:]

    @property
    def doubtful(self) -> bool:
        """Whether the next look should come soon."""
        return 0 < len(self._refused) < REFUSALS or 0 < self._odd_in_a_row < BAD

    def asked(self, now: float) -> None:
        """Note that a request was sent."""
        self._stalled_since, self._progress = now, None

    def waiting(self, progress: float | None, now: float) -> None:
        """Note the sum of what the engine counts, while the request waits; None: it does not say."""
        if self._progress is None or progress is None or progress == self._progress:
            self._progress = progress if self._progress is None else self._progress
            return
        self._went_on(now)
        self._stalled_since, self._progress = now, progress

    def answered(self, answer: Completion | None, why: str, now: float) -> None:
        """Note the answer, or why there is none."""
        if not why:
            self._went_on(now)
            self._stuck = ""
            self._has_answered = True
        else:
            self._stuck = self._stuck or self._stall_of(now)[0]
        self._stalled_since = None
        fault = Fault(why) if why or answer is None else self._fault(answer)
        self._answers = [*self._answers, fault][-LAST:]
        if fault.wrong and not self._wrong_in_a_row:
            self._wrong_since = now
        self._wrong_in_a_row = self._wrong_in_a_row + 1 if fault.wrong else 0
        self._odd_in_a_row = self._odd_in_a_row + 1 if any(fault) else 0

    def not_taken(self, now: float) -> None:
        """Note that the API was too late to take the request: of the engine that says nothing."""
        self._stuck = self._stuck or self._stall_of(now)[0]
        self._stalled_since = None

    def accept(self) -> None:
        """Take as right what it has answered otherwise: a canary has found it to be right."""
        self._right |= self._other
        self._other = set()
        self._answers, self._odd_in_a_row = [], 0

    def _went_on(self, now: float) -> None:
        if self._stalled_since is not None:
            self._longest = max(self._longest, now - self._stalled_since)

    def _fault(self, answer: Completion) -> Fault:
        """Return what an answer has against it."""
        if self._whole:
            nonsense = degenerate(answer.text)
            if nonsense is not None:
                return Fault(f"its answer is none: {nonsense}")
        if answer.finish_reason not in ("length", "stop", None):
            return Fault(f"its answer ends with {answer.finish_reason}")
        first = beginning(answer.text)
        if not self._right:
            self._right.add(first)
        if first in self._right:
            return Fault()
        if len(self._other) < OTHERS:
            self._other.add(first)
        known = min(self._right)
        return Fault(other=f"it answers {answer.text[:60]!r} to what it has answered with {known!r}")

    def verdict(self, now: float) -> Verdict:
        """Return what is known by now."""
        if len(self._refused) >= REFUSALS:
            # An API that is late may be busy with all it has to answer.
            hard = not self._slow and now - self._refused_since > self._hang
            return Verdict(self._seen, self._ready, self._refused[-1], hard)
        # The first looks at a doubtful one follow each other quickly: their number alone says little.
        lasts = self._wrong_in_a_row >= SURE and now - self._wrong_since > self._hang
        bad, hard = self._stall_of(now)
        if bad or self._stuck:
            return Verdict(self._seen, self._ready, bad or self._stuck, hard or lasts)
        wrong = [fault.wrong for fault in self._answers if fault.wrong]
        if len(wrong) >= BAD:
            return Verdict(self._seen, self._ready, wrong[-1], lasts)
        odd = [fault.other or fault.wrong for fault in self._answers if any(fault)]
        return Verdict(self._seen, self._ready, doubt=odd[-1] if len(odd) >= BAD else "")

    def _stall_of(self, now: float) -> tuple[str, bool]:
        """Return that it makes no progress with a request that waits, or empty; and whether for too long."""
        if self._stalled_since is None:
            return "", False
        stalled = now - self._stalled_since
        if self._progress is None:
            # An engine that does not count may as well be busy.
            late = stalled > max(self._hang, 3 * self._longest)
            return (f"a request has waited for {stalled:.0f} s" if late else ""), False
        if stalled <= max(self._stall, 2 * self._longest):
            return "", False
        why = f"it has made no progress for {stalled:.0f} s with a request that waits"
        # With its first request an engine may still have something to compile.
        limit = self._hang if self._has_answered else FIRST * self._hang
        return why, stalled > max(limit, 3 * self._longest)


def beginning(text: str) -> str:
    """Return the first word of a text, as far as it does not depend on punctuation and case."""
    word = next(iter(text.split()), "")
    return word.strip(PUNCTUATION).casefold() or word
