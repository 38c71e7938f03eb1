# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a name is a misspelling of another: so similar that it cannot be intended."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache

# How similar, from 0 to 1, a long name and its suggestion must be for a helpful suggestion.
_CLOSE = 0.85
# Words of at most so many letters distinguish names (TP and DP, MIN and MAX, HCCL and NCCL).
_SHORT = 4


def _limit(name: str) -> int:
    """Return how many letters may be wrong in a name of that length."""
    return 0 if len(name) < 6 else 1 if len(name) < 12 else 2


def _distance(left: str, right: str, limit: int) -> int:
    """Return the number of letters added, left out, replaced or swapped with their neighbour; ``limit`` + 1
    if there are more."""
    if abs(len(left) - len(right)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        last, row, before = before, [i], row
        for j, b in enumerate(right, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and b == left[i - 2]:
                best = min(best, last[j - 2] + 1)
            row.append(best)
        if min(row) > limit:
            return limit + 1
    return row[-1]


def _other_number(name: str, known: str) -> bool:
    """Whether the two differ in numbers only, as FP4 and FP8."""
    return re.sub(r"[0-9]+", "", name) == re.sub(r"[0-9]+", "", known)


def _word_more(name: str, known: str) -> bool:
    """Whether one name has all words of the other, and more."""
    shorter, longer = sorted((name.split("_"), known.split("_")), key=len)
    rest = iter(longer)
    return len(shorter) < len(longer) and all(word in rest for word in shorter)


def _other_word(name: str, known: str) -> bool:
    """Whether a short word differs in a letter."""
    mine, theirs = name.split("_"), known.split("_")
    return len(mine) == len(theirs) and any(
        a != b and len(a) == len(b) <= _SHORT and sorted(a) != sorted(b)
        for a, b in zip(mine, theirs, strict=True)
    )


def _swapped_or_doubled(name: str, known: str) -> bool:
    """Whether a short name has a typical typo: two letters swapped, or one doubled."""
    if len(name) == len(known):
        return sorted(name) == sorted(known) and _distance(name, known, 1) == 1
    if len(name) != len(known) + 1:
        return False
    return any(name == known[:i] + known[i] + known[i:] for i in range(len(known)))


def _is_slip(name: str, known: str) -> bool:
    if len(known) < 6:
        return _swapped_or_doubled(name, known)
    folded, meant = name.upper(), known.upper()
    if folded.replace("_", "") == meant.replace("_", ""):
        return True
    limit = _limit(known)
    if _distance(folded, meant, limit) > limit:
        return False
    return not (_other_number(folded, meant) or _word_more(folded, meant) or _other_word(folded, meant))


def _same(name: str, known: str) -> float:
    """Return the similarity of two names, from 0 to 1."""
    return difflib.SequenceMatcher(None, name.upper(), known.upper()).ratio()


@lru_cache(maxsize=4096)
def _slip_of(name: str, known: tuple[str, ...]) -> str | None:
    found = [other for other in known if other != name and _is_slip(name, other)]
    return max(found, key=lambda other: (_same(name, other), other), default=None)


def slip_of(name: str, known: Iterable[str]) -> str | None:
    """Return the name that this one is a misspelling of; None if it may be intended.

    >>> slip_of("HCCL_BUFSIZE", ["HCCL_BUFFSIZE"]), slip_of("LD_LIBRARY_PAggTH", ["LD_LIBRARY_PATH"])
    ('HCCL_BUFFSIZE', 'LD_LIBRARY_PATH')
    >>> slip_of("MY_PATH", ["PATH"]), slip_of("NCCL_SOCKET_IFNAME", ["HCCL_SOCKET_IFNAME"])
    (None, None)
    """
    return _slip_of(name, tuple(sorted(known)))


@lru_cache(maxsize=4096)
def _close_to(name: str, known: tuple[str, ...]) -> str | None:
    close = difflib.get_close_matches(name, known, n=3, cutoff=_CLOSE)
    return next(
        (other for other in close if not _other_number(name, other) and not _other_word(name, other)), None
    )


def close_to(name: str, known: Iterable[str], *, complete: bool = True) -> str | None:
    """Return the known name that this one resembles most, as a suggestion; None if none is similar enough. If
    the list is not ``complete``, a name with one word more or less may be a valid one of the same family."""
    names = tuple(sorted(known))
    near = _slip_of(name, names) or _close_to(name, names)
    return None if near is not None and not complete and _word_more(name, near) else near
