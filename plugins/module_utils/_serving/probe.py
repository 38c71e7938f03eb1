# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Asks a health URL on a server. Needs nothing but Python."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

PROBE_TIMEOUT_SECONDS = 2.0


def fetch(url: str, timeout: float = PROBE_TIMEOUT_SECONDS) -> tuple[bytes | None, str]:
    """(body, "") of an answer with status 200, else (None, what was seen)."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as response:
            return response.read(), ""
    except urllib.error.HTTPError as error:
        return None, f"HTTP {error.code}"
    except http.client.HTTPException as error:
        # Something else than an HTTP server has the port, or an answer breaks off.
        return None, f"no complete HTTP answer: {error!r}"
    except (OSError, ValueError) as error:
        return None, str(getattr(error, "reason", error))


def probe(
    url: str, expect: Mapping[str, Any] | None, timeout: float = PROBE_TIMEOUT_SECONDS
) -> tuple[bool, str]:
    """(ready, what was seen) of a health URL. `expect`: what its JSON answer must hold."""
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
    """What a health URL tells instead of what is expected of it; None where it is as expected, or is silent.

    A proxy that does not answer may be starting; one that answers with other numbers has another list of
    backends than its script gave it, since somebody has posted to /instances/add or /instances/remove.
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
