# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Asks an engine's API, one request after the other, and tells the judge what came."""

from __future__ import annotations

import http.client
import json
import select
import socket
import threading
import time
import uuid
from functools import partial
from typing import Callable

from .._serving.canary_prompts import PROMPTS
from .._serving.completions import BadAnswerError, completion
from .config import Config, Engine
from .judge import Judge, Verdict

# Seconds for an answer of /health and /metrics, between looks while something is doubtful, and while a
# request waits.
LOOK, SOON, WAITING = 2.0, 0.3, 1.0
# Requests to so many APIs of an engine take as long as the setting says; to more of them, longer.
APIS = 4
# As many tokens as the canary's, so that what is wrong with them shows; a prefiller computes the first.
TOKENS = {"prefiller": 1, "decoder": 16}
LATE = "has no answer within"
# What grows as long as an engine works (V@0.13.0:vllm/v1/metrics/loggers.py, and the same to v0.30.0).
PROGRESS = (
    "vllm:iteration_tokens_total_count",
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:request_success_total",
)


class Prober:
    """Asks one API for as long as its engine runs.

    api: the API, as ``address:port``.
    told: called when the verdict has changed.
    """

    def __init__(self, config: Config, engine: Engine, api: str, told: Callable[[], None]) -> None:
        self._config, self._engine, self.api, self._told = config, engine, api, told
        self._host, _, port = api.rpartition(":")
        self._port = int(port)
        self._pause = config.settings.probe * max(1.0, len(engine.apis) / APIS)
        self._lock = threading.Lock()
        self._start = ""
        self._judge = self._new_judge()
        self._verdict = Verdict()
        # Of an engine that ran before the guard did, nothing is known before the first look.
        self._fresh = True
        self._hurry = threading.Event()

    def _new_judge(self) -> Judge:
        settings = self._config.settings
        return Judge(settings.stall, settings.hang, whole=self._engine.role == "decoder")

    def follow(self, start: str) -> None:
        """Begin anew if the engine has been started anew; without a start it does not run."""
        with self._lock:
            if start != self._start:
                self._start, self._judge = start, self._new_judge()
                self._verdict = Verdict(seen=not (self._fresh and start))
                self._fresh = False
                self.hurry()

    def verdict(self) -> Verdict:
        """Return what is known by now."""
        with self._lock:
            if not self._start:
                return Verdict(seen=True)
            verdict = self._judge.verdict(time.monotonic())
            return verdict._replace(seen=verdict.seen or self._verdict.seen)

    def run(self) -> None:
        """Ask for good."""
        while True:
            with self._lock:
                start, judge = self._start, self._judge
            if not start:
                self._wait(WAITING)
                continue
            self._look(start, judge)
            if self.verdict().ready:
                self._request(start, judge)
            self._wait(SOON if judge.doubtful else self._pause if self.verdict().ready else WAITING)

    def accept(self) -> None:
        """Take as right what it has answered otherwise than before."""
        with self._lock:
            self._judge.accept()

    def hurry(self) -> None:
        """Have it ask now."""
        self._hurry.set()

    def _wait(self, seconds: float) -> None:
        self._hurry.wait(seconds)
        self._hurry.clear()

    def _note(self, start: str, what: Callable[[float], None]) -> None:
        """Tell the judge, unless the engine has been started anew meanwhile."""
        with self._lock:
            if start != self._start:
                return
            now = time.monotonic()
            what(now)
            before, self._verdict = self._verdict, self._judge.verdict(now)._replace(seen=True)
        if before != self._verdict:
            self._told()

    def _look(self, start: str, judge: Judge) -> None:
        """Tell the judge what /health answers."""
        why, _ = self._get("/health")
        self._note(start, partial(judge.health, why, slow=LATE in why))

    def _get(self, path: str) -> tuple[str, bytes]:
        """Return what is wrong with the answer to a GET request, or empty, and its body."""
        link = http.client.HTTPConnection(self._host, self._port, timeout=LOOK)
        try:
            link.request("GET", path)
            answer = link.getresponse()
            body = answer.read()
        except socket.timeout:
            return f"{path} {LATE} {LOOK:.0f} s", b""
        except (OSError, http.client.HTTPException) as error:
            return f"{path}: {_why(error)}", b""
        finally:
            link.close()
        return ("" if answer.status == 200 else f"{path} answers {answer.status}"), body

    def _request(self, start: str, judge: Judge) -> None:
        """Send one request, and wait for its answer for as long as the engine runs."""
        try:
            key = self._config.api_key()
        except (OSError, ValueError):
            # The key of this server is no fault of the engine.
            return
        link = http.client.HTTPConnection(self._host, self._port, timeout=LOOK)
        body = {
            "model": self._config.model,
            "prompt": PROMPTS[0],
            "max_tokens": TOKENS[self._engine.role],
            "temperature": 0,
            "stream": False,
            "cache_salt": uuid.uuid4().hex,
        }
        headers = {"Content-Type": "application/json", "X-Request-Id": uuid.uuid4().hex}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            self._note(start, judge.asked)
            link.request("POST", "/v1/completions", json.dumps(body), headers)
            while not select.select([link.sock], [], [], WAITING)[0]:
                if start != self._start:
                    return
                # An engine whose core has died says so here, and leaves requests without an answer.
                self._look(start, judge)
                self._note(start, partial(judge.waiting, self._progress()))
            answer = link.getresponse()
            text = answer.read().decode("utf-8", "replace")
            found, why = None, ""
            if answer.status == 200:
                found = completion(text)
            elif answer.status >= 500:
                why = f"it answers {answer.status}"
        except BadAnswerError as error:
            found, why = None, f"its answer is none: {error}"
        except socket.timeout:
            # It is late with a connection, which /health shows as well.
            self._note(start, judge.not_taken)
            return
        except (OSError, http.client.HTTPException) as error:
            found, why = None, f"a request fails: {_why(error)}"
        finally:
            link.close()
        self._note(start, partial(judge.answered, found, why))

    def _progress(self) -> float | None:
        """Return the sum of the engine's counters; None if it does not say."""
        why, body = self._get("/metrics")
        if why:
            return None
        total: float | None = None
        for line in body.decode("utf-8", "replace").splitlines():
            if line.startswith(PROGRESS):
                try:
                    total = (total or 0.0) + float(line.rsplit(None, 1)[1])
                except (IndexError, ValueError):
                    continue
        return total


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
