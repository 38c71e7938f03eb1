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
    expect: keys and values that its JSON answer must have; empty accepts any answer with status 200.
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
    seen = {key: answer.get(key) for key in expect} if isinstance(answer, dict) else answer
    return seen == expect, f"answers {json.dumps(seen, sort_keys=True)}"


def other_list(
    url: str, expect: Mapping[str, Any], timeout: float = PROBE_TIMEOUT_SECONDS
) -> dict[str, Any] | None:
    """Return the values of a health URL if they differ from the expected ones, else None.

    Without an answer it is None too, as the proxy may be starting. A proxy that answers with other numbers no
    longer has the list of backends from its script, because somebody has posted to /instances/add or
    /instances/remove.
    """
    body, _problem = fetch(url, timeout)
    try:
        answer = json.loads(body) if body is not None else None
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    seen = {key: answer.get(key) for key in expect}
    return None if seen == dict(expect) else seen
