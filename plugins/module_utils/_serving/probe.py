# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Queries health URLs on a server, with Python alone."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

PROBE_TIMEOUT_SECONDS = 2.0


def fetch(url: str, timeout: float = PROBE_TIMEOUT_SECONDS) -> tuple[bytes | None, str]:
    """Fetch a URL, with a timeout in seconds; return (body, "") for status 200, else (None, problem)."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as response:
            return response.read(), ""
    except urllib.error.HTTPError as error:
        return None, f"HTTP {error.code}"
    except http.client.HTTPException as error:
        # The port belongs to something other than an HTTP server, or the answer breaks off.
        return None, f"no complete HTTP answer: {error!r}"
    except (OSError, ValueError) as error:
        return None, str(getattr(error, "reason", error))


def probe(
    url: str, expect: Mapping[str, Any] | None, timeout: float = PROBE_TIMEOUT_SECONDS
) -> tuple[bool, str]:
    """Query a health URL and return (ready, what was seen).

    url: the health URL.
    expect: keys and values that its JSON answer must have; empty accepts any answer with status 200. For the
        list of vllm-router: URLs by role.
    timeout: in seconds.
    """
    body, problem = fetch(url, timeout)
    if body is None:
        return False, problem
    if not expect:
        return True, "ok"
    try:
        answer = json.loads(body)
    except ValueError:
        return False, f"not JSON: {body[:80]!r}"
    if isinstance(answer, dict) and WORKERS in answer:
        return _workers_ready(answer, expect)
    seen = {key: answer.get(key) for key in expect} if isinstance(answer, dict) else answer
    return seen == expect, f"answers {json.dumps(seen, sort_keys=True)}"


# The list of backends in the answer of vllm-router's /workers.
WORKERS = "workers"


def listed(answer: Mapping[str, Any], expect: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the URLs that vllm-router lists, by the roles of ``expect``."""
    workers = [worker for worker in answer[WORKERS] if isinstance(worker, dict)]
    return {
        role: sorted(str(worker.get("url")) for worker in workers if worker.get("worker_type") == role)
        for role in expect
    }


def _workers_ready(answer: Mapping[str, Any], expect: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether vllm-router lists the planned backends and finds all of them healthy, and what not."""
    seen = listed(answer, expect)
    if any(seen[role] != sorted(expect[role]) for role in expect):
        return False, f"lists {json.dumps(seen, sort_keys=True)}"
    sick = sorted(str(worker.get("url")) for worker in answer[WORKERS] if not worker.get("is_healthy"))
    return not sick, f"finds unhealthy: {', '.join(sick)}" if sick else "ok"


def other_list(
    url: str, expect: Mapping[str, Any], timeout: float = PROBE_TIMEOUT_SECONDS
) -> dict[str, Any] | None:
    """Return the values of a health URL if they differ from the expected ones, else None.

    Without an answer it is None too, as the proxy may be starting. A proxy that answers with other numbers no
    longer has the list of backends from its script, because somebody has posted to /instances/add or
    /instances/remove, or to /remove_worker of vllm-router.
    """
    body, _problem = fetch(url, timeout)
    try:
        answer = json.loads(body) if body is not None else None
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    if WORKERS in answer:
        urls = listed(answer, expect)
        return None if all(urls[role] == sorted(expect[role]) for role in expect) else dict(urls)
    seen = {key: answer.get(key) for key in expect}
    return None if seen == dict(expect) else seen
