# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The work of the module canary: asks every pair of prefiller and decoder, and examines the answers."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .._findings import Finding, errors_of, ordered, text_of
from .canary_metaserver import Metaserver
from .canary_prompts import PROMPTS
from .canary_requests import DECODER, Fault, FaultyAnswer, Pull, Push, Requests
from .canary_verdict import (
    Asked,
    Counters,
    Share,
    counted,
    counters,
    differs,
    faults,
    share,
    shorter,
    suspects,
    told_share,
)
from .catalogue import CANARY_CHECKS
from .completions import Completion
from .http_client import Http

_API = {"host": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}
_INSTANCES = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {
        "instance": {"type": "str", "required": True},
        "apis": {"type": "list", "elements": "dict", "required": True, "options": _API},
    },
}
ARGUMENTS: dict[str, Any] = {
    "prefillers": _INSTANCES,
    "decoders": _INSTANCES,
    "only": {"type": "list", "elements": "str", "default": []},
    "protocol": {"type": "str", "choices": ["pull", "push", "none"], "required": True},
    "listen": {"type": "dict", "options": {**_API, "port": {"type": "int", "default": 0}}},
    "release": {"type": "str", "required": True},
    "model": {"type": "str", "required": True},
    "api_key_file": {"type": "path", "no_log": False},
    "prompts": {"type": "list", "elements": "str"},
    "max_tokens": {"type": "int", "default": 16, "no_log": False},
    "match_words": {"type": "int", "default": 2},
    "known": {"type": "dict", "default": {}},
    "attempts": {"type": "int", "default": 1},
    "timeout": {"type": "float", "default": 60},
    "show": {"type": "bool", "default": True},
}

# Decoders that are asked at a time, and pairs of each of them.
DECODERS_AT_ONCE, PAIRS_AT_ONCE = 16, 8
# How often a pair is asked at most if other requests hide whether its KV cache was transferred.
MEASUREMENTS = 3
# The counters are set after an answer is sent; seconds.
SETTLE_SECONDS, SETTLE_STEP = 2.0, 0.25


class Ask:
    """A prefiller's and a decoder's API that are asked together, and what came of it."""

    def __init__(self, prefiller: str, decoder: str) -> None:
        # Base URLs; that of the prefiller is empty where the decoder does both.
        self.prefiller, self.decoder = prefiller, decoder
        self.answers: list[Completion] = []
        self.faults: list[Fault] = []
        self.share: Share | None = None
        self.seconds = 0.0

    @property
    def tokens(self) -> int:
        """Prompt tokens of its answers."""
        return sum(answer.prompt_tokens or 0 for answer in self.answers)


class Pair:
    """An instance of each role. With several APIs to an instance each of them is asked."""

    def __init__(self, prefiller: Mapping[str, Any] | None, decoder: Mapping[str, Any]) -> None:
        self.prefiller = prefiller["instance"] if prefiller else ""
        self.decoder = decoder["instance"]
        theirs, ours = _urls(decoder), _urls(prefiller) if prefiller else [""]
        count = max(len(theirs), len(ours))
        self.asks = [Ask(ours[at % len(ours)], theirs[at % len(theirs)]) for at in range(count)]

    @property
    def key(self) -> str:
        """Its name in ``known`` and ``texts``."""
        return f"{self.prefiller} {self.decoder}".strip()

    @property
    def place(self) -> str:
        """Its name in findings."""
        return f"{self.prefiller} → {self.decoder}" if self.prefiller else str(self.decoder)

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(fault for ask in self.asks for fault in ask.faults)

    def asked(self) -> Asked:
        """Return it for suspects(), without what is a hint only."""
        return Asked(self.prefiller, self.decoder, tuple(f for f in self.faults if f.code != UNKNOWN))

    def to_dict(self) -> dict[str, Any]:
        """Return it as in the module's result."""
        shares = [ask.share.value for ask in self.asks if ask.share is not None]
        known = [value for value in shares if value is not None]
        return {
            "prefiller": self.prefiller,
            "decoder": self.decoder,
            "ok": not self.asked().faults,
            "texts": [answer.text for answer in self.asks[0].answers],
            "transferred": round(min(known), 3) if known else None,
            "seconds": round(max(ask.seconds for ask in self.asks), 3),
        }


def _urls(instance: Mapping[str, Any]) -> list[str]:
    return [f"http://{api['host']}:{api['port']}" for api in instance["apis"]]


UNKNOWN = "canary-transfer-unknown"


class Canary:
    """Asks pairs and examines the answers.

    requests: sends requests to the engines.
    p: the module's options.
    metrics: returns a decoder's counters, None if it has none.
    """

    def __init__(
        self,
        requests: Requests,
        p: Mapping[str, Any],
        metrics: Callable[[str], Counters | None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.requests, self.p, self.metrics, self.sleep = requests, p, metrics, sleep
        self.prompts: Sequence[str] = p.get("prompts") or PROMPTS

    def run(self, pairs: Iterable[Pair]) -> None:
        """Ask all pairs and note what is wrong with them."""
        by_decoder: dict[str, list[tuple[Pair, Ask]]] = {}
        for pair in pairs:
            for ask in pair.asks:
                by_decoder.setdefault(ask.decoder, []).append((pair, ask))
        if by_decoder:
            with ThreadPoolExecutor(min(DECODERS_AT_ONCE, len(by_decoder))) as pool:
                list(pool.map(lambda item: self._decoder(*item), by_decoder.items()))

    def _decoder(self, url: str, rows: Sequence[tuple[Pair, Ask]]) -> None:
        """Ask a decoder alone, then all its pairs."""
        alone = Ask("", url)
        self._answer(alone, lambda prompt: self.requests.alone(url, prompt))
        for at, answer in enumerate(alone.answers):
            self._examine(alone, answer, f"the answer to prompt {at + 1} by {url} alone", DECODER)
        if alone.faults or not rows[0][1].prefiller:
            for pair, ask in rows:
                ask.answers, ask.seconds, ask.faults = alone.answers, alone.seconds, list(alone.faults)
                self._compare_known(pair, ask)
            return
        pending = list(rows)
        for _attempt in range(max(1, self.p["attempts"])):
            self._window(url, pending, alone.answers)
            pending = [row for row in pending if any(fault.code != UNKNOWN for fault in row[1].faults)]
            if not pending:
                break

    def _window(self, url: str, rows: Sequence[tuple[Pair, Ask]], alone: Sequence[Completion]) -> None:
        """Ask pairs of one decoder at once; those of which the counters then say nothing, one by one."""
        self._measured(url, rows, alone)
        for pair, ask in rows:
            for _again in range(MEASUREMENTS - 1):
                if ask.faults or ask.share is None or ask.share.transferred is not None:
                    break
                self._measured(url, [(pair, ask)], alone)
            if len(ask.answers) == len(self.prompts):
                self._judge_share(ask)

    def _measured(self, url: str, rows: Sequence[tuple[Pair, Ask]], alone: Sequence[Completion]) -> None:
        """Ask pairs of one decoder at once, and note which share of their prompts was transferred."""
        before = self.metrics(url)
        with ThreadPoolExecutor(min(PAIRS_AT_ONCE, len(rows))) as pool:
            list(pool.map(lambda row: self._ask(row[0], row[1], alone), rows))
        asks = [ask for _pair, ask in rows]
        all_tokens = sum(ask.tokens for ask in asks)
        between = counted(before, self.metrics(url))
        for _attempt in range(int(SETTLE_SECONDS / SETTLE_STEP)):
            if between is None or sum(between) >= all_tokens:
                break
            self.sleep(SETTLE_STEP)
            between = counted(before, self.metrics(url))
        for ask in asks:
            ask.share = told_share(ask.answers) or share(between, ask.tokens, all_tokens)

    def _ask(self, pair: Pair, ask: Ask, alone: Sequence[Completion]) -> None:
        """Ask one pair, and examine its answers."""
        self._answer(ask, lambda prompt: self.requests.pair(ask.prefiller, ask.decoder, prompt))
        for at, answer in enumerate(ask.answers):
            what = f"the answer to prompt {at + 1} by {ask.decoder}"
            if self._examine(ask, answer, what):
                self._compare(ask, answer, alone[at], what)
        self._compare_known(pair, ask)

    def _answer(self, ask: Ask, send: Callable[[str], Completion]) -> None:
        """Note the answers to all prompts, up to the first that gets none."""
        ask.answers, ask.faults, ask.share = [], [], None
        begin = time.monotonic()
        try:
            for prompt in self.prompts:
                ask.answers.append(send(prompt))
        except FaultyAnswer as error:
            ask.faults.append(error.fault)
        ask.seconds = time.monotonic() - begin

    def _examine(self, ask: Ask, answer: Completion, what: str, side: str = "") -> bool:
        """Return whether an answer is one, after noting what is wrong with it."""
        fault = faults(answer, self.p["max_tokens"], what, side)
        if fault is not None:
            self._note(ask, fault)
        return fault is None

    def _compare(self, ask: Ask, answer: Completion, alone: Completion, what: str) -> None:
        """Compare an answer with that of the decoder alone."""
        seen = f"{answer.text!r}, alone {alone.text!r}"
        if differs(answer.text, alone.text, self.p["match_words"]):
            self._note(ask, Fault("canary-wrong", f"{what} is not that of the decoder alone", seen))
        elif shorter(answer, alone, self.p["match_words"]):
            self._note(ask, Fault("canary-cut", f"{what} ends before that of the decoder alone", seen))

    def _compare_known(self, pair: Pair, ask: Ask) -> None:
        """Compare answers with those of the last good revision."""
        known = self.p["known"].get(pair.key) or []
        for at, (answer, text) in enumerate(zip(ask.answers, known)):
            if answer.text.strip() and differs(answer.text, str(text), self.p["match_words"]):
                what = f"the answer to prompt {at + 1} by {ask.decoder} is another one than before"
                self._note(ask, Fault("canary-changed", what, f"{answer.text!r}, before {text!r}"))

    @staticmethod
    def _note(ask: Ask, fault: Fault) -> None:
        """Note a fault: of each kind one, since the next prompt would show the same."""
        if all(fault.code != other.code for other in ask.faults):
            ask.faults.append(fault)

    def _judge_share(self, ask: Ask) -> None:
        verdict = None if ask.share is None else ask.share.transferred
        if ask.share is not None and verdict is False:
            message = f"{ask.decoder} computed the prompts itself, without the KV cache of {ask.prefiller}"
            seen = f"at most {ask.share.most:.0%} of the prompts' tokens transferred"
            self._note(ask, Fault("canary-recomputed", message, seen))
        elif verdict is None and not ask.faults:
            message = f"it is not known whether {ask.decoder} got the KV cache or computed the prompts itself"
            hidden = "other requests hide it" if ask.share else "its metrics do not count it"
            self._note(ask, Fault(UNKNOWN, message, hidden))


def findings(pairs: Iterable[Pair]) -> list[Finding]:
    """Return what is wrong with pairs, as findings whose place is the pair."""
    return ordered(
        CANARY_CHECKS.finding(fault.code, fault.message, instance=pair.place, seen=fault.seen or None)
        for pair in pairs
        for fault in pair.faults
    )


def chosen(options: Mapping[str, Any]) -> list[Pair]:
    """Return the pairs that the options name."""
    only = set(options["only"])
    prefillers = [None] if options["protocol"] == "none" else options["prefillers"]
    pairs = [Pair(prefiller, decoder) for prefiller in prefillers for decoder in options["decoders"]]
    return [pair for pair in pairs if not only or pair.prefiller in only or pair.decoder in only]


def refused(options: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the options themselves, or None."""
    instances = [*options["prefillers"], *options["decoders"]]
    unknown = sorted(set(options["only"]) - {instance["instance"] for instance in instances})
    if unknown:
        return f"only: no instance is called {', '.join(unknown)}"
    if any(not instance["apis"] for instance in instances):
        return "every instance needs an API in apis"
    if options["protocol"] == "push" and not options["listen"]:
        return "the protocol push needs listen"
    return None


def result(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's result, with ``failed`` if it fails."""
    wrong = refused(options)
    if wrong is not None:
        return {"failed": True, "changed": False, "msg": wrong}
    if options["_check_mode"]:
        why = "no requests are sent in check mode"
        return {**_result([], []), "skipped": True, "msg": why}
    path = options["api_key_file"]
    try:
        key = Path(path).read_text(encoding="utf-8").strip() if path else None
    except OSError as error:
        return {"failed": True, "changed": False, "msg": f"Cannot read the API key: {error}"}
    http_client = Http(options["timeout"], key)
    pairs = chosen(options)
    asking = (http_client, options["model"], options["max_tokens"])
    if options["protocol"] != "push":
        return _asked(Pull(*asking), options, http_client, pairs)
    listen = options["listen"]
    try:
        metaserver = Metaserver(listen["host"], listen["port"])
    except OSError as error:
        at = f"{listen['host']}:{listen['port']}"
        return _result([], [CANARY_CHECKS.finding("canary-no-listener", seen=f"{at}: {error}")])
    try:
        return _asked(Push(*asking, metaserver), options, http_client, pairs)
    finally:
        metaserver.close()


def _asked(
    requests: Requests, options: Mapping[str, Any], http_client: Http, pairs: Sequence[Pair]
) -> dict[str, Any]:
    def metrics(url: str) -> Counters | None:
        try:
            return counters(http_client.get(url + "/metrics"), options["release"])
        except (OSError, http.client.HTTPException):
            return None

    Canary(requests, options, metrics).run(pairs)
    return _result(pairs, findings(pairs))


def _result(pairs: Sequence[Pair], found: Sequence[Finding]) -> dict[str, Any]:
    rows = [pair.to_dict() for pair in pairs]
    named = suspects(pair.asked() for pair in pairs)
    content = {
        "changed": False,
        "pairs": rows,
        "texts": {pair.key: row["texts"] for pair, row in zip(pairs, rows) if row["ok"]},
        "findings": [finding.to_dict() for finding in found],
        "suspects": named,
    }
    if not errors_of(found):
        return content
    bad = sum(not row["ok"] for row in rows)
    head = f"The canary fails for {bad} of {len(rows)} pairs" if rows else "The canary cannot ask"
    common = f"; in all failing pairs, and in no good one: {', '.join(named)}" if named else ""
    return {**content, "failed": True, "msg": text_of(found, f"{head}{common}.")}
