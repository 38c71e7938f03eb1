# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the canary makes of answers and counters. Pure functions.

**Was the KV cache transferred?** An answer does not say so, and a decoder that computes the prompt itself
gives the right text. Its counters say it, but they also count other requests, because the service goes on
meanwhile. Counters never fall. So while the canary's request with ``n`` prompt tokens is served,

- they have counted at least ``n`` computed tokens if it was computed: if they have counted fewer, it was
  not;
- they have counted at least ``n`` transferred tokens if it was transferred: if they have counted fewer, it
  was not.

Other requests can only hide the answer to both questions, never turn it around. If they do, the canary asks
again, and in the end says that it does not know. A salt keeps its requests from what a prefix cache holds,
so that there is no third way. A decoder without other requests always gives an answer.

By release: v0.13.0 counts the tokens that its connector was asked for and those that it provides, when a
request is scheduled (V@0.13.0:vllm/v1/core/sched/scheduler.py:618, 1540). From v0.18.0 on prompt tokens are
counted by source (V@0.18.0:vllm/v1/metrics/loggers.py:600). Cached tokens count as transferred there,
because not all of vllm-ascend's schedulers tell the two apart
(A@v0.18.0:vllm_ascend/core/scheduler_dynamic_batch.py). One token of a transferred prompt is computed, to
sample from. Both are counted with the first token, before the answer ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .canary_requests import DECODER, PREFILLER, Fault
from .completions import Completion, degenerate, metric_sum, same_beginning

# The share of the prompt's tokens beyond which it counts as transferred, or as computed.
HALF = 0.5
# The first release that counts prompt tokens by source.
BY_SOURCE = (0, 18)


class Counters(NamedTuple):
    """Prompt tokens that a decoder has got from a prefiller, and those that it has computed itself."""

    transferred: float
    computed: float


class Share(NamedTuple):
    """The share of prompt tokens that were transferred: at least, and at most."""

    least: float
    most: float

    @property
    def transferred(self) -> bool | None:
        """Whether they were; None if other requests hide it."""
        if self.least >= HALF:
            return True
        return False if self.most < HALF else None

    @property
    def value(self) -> float | None:
        """The share, if it is known."""
        return {True: self.least, False: self.most, None: None}[self.transferred]


def counters(exposition: str, release: str) -> Counters | None:
    """Return a decoder's counters from its metrics; None if it has none.

    release: name of vllm-ascend's release, such as v0.13.0.
    """
    if _version(release) >= BY_SOURCE:
        name = "vllm:prompt_tokens_by_source_total"
        external = metric_sum(exposition, name, 'source="external_kv_transfer"')
        cached = metric_sum(exposition, name, 'source="local_cache_hit"')
        computed = metric_sum(exposition, name, 'source="local_compute"')
        if external is None or cached is None or computed is None:
            return None
        return Counters(external + cached, computed)
    queries = metric_sum(exposition, "vllm:external_prefix_cache_queries_total")
    hits = metric_sum(exposition, "vllm:external_prefix_cache_hits_total")
    if queries is None or hits is None:
        return None
    return Counters(hits, queries - hits)


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", release)[:2])


def counted(before: Counters | None, after: Counters | None) -> Counters | None:
    """Return what was counted in between; None if that is not known, because the engine was restarted."""
    if before is None or after is None:
        return None
    found = Counters(after.transferred - before.transferred, after.computed - before.computed)
    return found if min(found) >= 0 else None


def share(between: Counters | None, tokens: int, all_tokens: int) -> Share | None:
    """Return the share of a request's prompt tokens that were transferred, None if nothing counts them.

    between: what the decoder counted while it served the request.
    tokens: prompt tokens of the request.
    all_tokens: prompt tokens of all of the canary's requests in that time.
    """
    if between is None or tokens <= 0 or sum(between) < HALF * all_tokens:
        return None
    return Share(max(0.0, 1 - between.computed / tokens), min(1.0, between.transferred / tokens))


def told_share(answers: Sequence[Completion]) -> Share | None:
    """Return the share as the answers tell it themselves, which needs --enable-prompt-tokens-details."""
    counts = [(answer.cached, answer.prompt_tokens) for answer in answers]
    cached = [count for count, tokens in counts if count is not None and tokens]
    if not counts or len(cached) < len(counts):
        return None
    told = sum(cached) / sum(tokens or 0 for _count, tokens in counts)
    return Share(told, told)


def faults(answer: Completion, max_tokens: int, what: str, side: str = "") -> Fault | None:
    """Return what is wrong with an answer for itself: empty, repeated or cut.

    what: names the answer in the message.
    side: the side that alone has computed it.
    """
    why = degenerate(answer.text)
    if why is not None:
        code = "canary-empty" if not answer.text.strip() else "canary-repeats"
        return Fault(code, f"{what} is no answer: {why}", repr(answer.text), side)
    if answer.finish_reason not in ("length", "stop") or answer.stop_reason == "recomputed":
        reason = answer.stop_reason or answer.finish_reason
        return Fault("canary-cut", f"{what} breaks off", f"{reason}: {answer.text!r}", side)
    if answer.finish_reason == "length" and answer.tokens is not None and answer.tokens < max_tokens:
        seen = f"{answer.tokens} of {max_tokens} tokens: {answer.text!r}"
        return Fault("canary-cut", f"{what} breaks off before its last token", seen, side)
    return None


def differs(text: str, other: str, words: int) -> bool:
    """Return whether two texts begin otherwise within so many words; 0 compares nothing."""
    return bool(words) and not same_beginning(text, other, words)


def shorter(answer: Completion, alone: Completion, words: int) -> bool:
    """Return whether an answer ends before the words that are compared, and the decoder's own does not."""
    ours, theirs = len(answer.text.split()), len(alone.text.split())
    return ours < min(words, theirs)


class Asked(NamedTuple):
    """The names of a pair, and what is wrong with it; without prefillers its name is empty."""

    prefiller: str
    decoder: str
    faults: tuple[Fault, ...]


def suspects(pairs: Iterable[Asked]) -> list[str]:
    """Return the instances all of whose pairs fail.

    If both instances of a pair do so, only that whose side has caused it, where this is known.
    """
    listed = list(pairs)
    good = {name for pair in listed if not pair.faults for name in (pair.prefiller, pair.decoder)}
    found: dict[str, None] = {}
    for pair in listed:
        sides = {PREFILLER: pair.prefiller, DECODER: pair.decoder} if pair.faults else {}
        bad = {side: name for side, name in sides.items() if name and name not in good}
        causes = {fault.side for fault in pair.faults}
        known = set() if "" in causes else causes & set(bad)
        found.update(dict.fromkeys(bad[side] for side in bad if side in known or not known))
    return list(found)
