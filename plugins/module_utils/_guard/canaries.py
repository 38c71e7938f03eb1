# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Canaries of a router's server: which pairs they ask, and what their results say.

Each runs in a process of its own, so that one that hangs keeps the guard from nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._serving import canary
from .config import Config, Instance

# Seconds for a canary as a whole.
LIMIT = 600.0
ATTEMPTS, TOKENS, WORDS = 2, 16, 2
NO_ANSWER = "canary-no-answer"


class Outcome(NamedTuple):
    """What a canary says.

    passed: instances that passed.
    bad: those that did not, with the reason.
    silent: those of them that gave no complete answer: a busy engine does not either.
    failed: why it says nothing at all; empty if it does.
    """

    passed: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()
    silent: frozenset[str] = frozenset()
    failed: str = ""


def matching(prefillers: Sequence[str], decoders: Sequence[str], turn: int) -> list[tuple[str, str]]:
    """Return pairs in which each instance is once at least; the next turn pairs them otherwise."""
    if not prefillers or not decoders:
        return []
    count = max(len(prefillers), len(decoders))
    return [(prefillers[at % len(prefillers)], decoders[(at + turn) % len(decoders)]) for at in range(count)]


def options(
    config: Config, prefillers: Iterable[Instance], decoders: Iterable[Instance], only: Iterable[str]
) -> dict[str, Any]:
    """Return the options of a canary over pairs of these instances, those in ``only`` if there are any."""
    return {
        "prefillers": [_member(one) for one in prefillers],
        "decoders": [_member(one) for one in decoders],
        "only": list(only),
        "protocol": config.protocol,
        "listen": config.listen,
        "release": config.release,
        "model": config.model,
        "api_key_file": config.secret_path,
        "prompts": None,
        "max_tokens": TOKENS,
        "match_words": WORDS,
        # Texts of a revision hold for its weights, and nobody tells the guard whether these were replaced.
        "known": {},
        "attempts": ATTEMPTS,
        "timeout": config.settings.answer,
        "show": False,
        "_check_mode": False,
    }


def _member(instance: Instance) -> dict[str, Any]:
    apis = [api.rpartition(":") for api in instance.apis]
    return {"instance": instance.name, "apis": [{"host": host, "port": int(port)} for host, _, port in apis]}


def run(asked: Sequence[Mapping[str, Any]], program: Path) -> list[dict[str, Any]]:
    """Return the results of canaries, one after the other, from a process of its own.

    asked: their options.
    program: the guard's archive.

    Raises OSError, ValueError, subprocess.SubprocessError.
    """
    done = subprocess.run(
        [sys.executable, "-I", str(program), "canary"],
        input=json.dumps(list(asked)).encode(),
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise ValueError(done.stderr.decode("utf-8", "replace").strip()[-300:] or "it failed")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def ask() -> int:
    """Run the canaries on standard input, and print their results: the process that run() starts."""
    json.dump([canary.result(options_) for options_ in json.load(sys.stdin)], sys.stdout)
    return 0


def outcome(results: Iterable[Mapping[str, Any]], judged: Collection[str]) -> Outcome:
    """Return what results say of the instances that were to be judged.

    One passes if all of its pairs do, or those that fail are the fault of the other side.
    """
    rows = [row for result in results for row in result.get("pairs", ())]
    found = [finding for result in results for finding in result.get("findings", ())]
    suspects = {name for result in results for name in result.get("suspects", ())}
    if not rows:
        said = next((str(result.get("msg")) for result in results if result.get("msg")), "it asked nobody")
        return Outcome(failed=said)
    passed, bad = [], []
    for name in judged:
        mine = [row for row in rows if name in (row["prefiller"], row["decoder"])]
        others = [
            row["decoder"] if row["prefiller"] == name else row["prefiller"] for row in mine if not row["ok"]
        ]
        if name in suspects or any(other not in suspects for other in others):
            bad.append((name, _why(name, found)))
        elif any(row["ok"] for row in mine):
            passed.append(name)
    errors = [one for one in found if one.get("severity") == "error"]
    codes = {name: {str(one.get("code")) for one in errors if name in _pair(one)} for name, _ in bad}
    silent = frozenset(name for name, its in codes.items() if its == {NO_ANSWER})
    return Outcome(tuple(passed), tuple(bad), silent)


def _pair(finding: Mapping[str, Any]) -> list[str]:
    """Return the instances of a finding."""
    return str(finding.get("instance")).split(" → ")


def _why(name: str, findings: Iterable[Mapping[str, Any]]) -> str:
    """Return what the first finding about an instance says."""
    for finding in findings:
        if name in _pair(finding) and finding.get("severity") == "error":
            seen = f": {finding['seen']}" if finding.get("seen") else ""
            return f"{finding.get('message')}{seen}"
    return "its canary fails"
