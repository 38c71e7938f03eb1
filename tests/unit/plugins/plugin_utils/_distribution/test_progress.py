# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""How a transfer reads on the screen, and why it failed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.catalogue import TRANSFER_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.status import (
    Rate,
    TransferStatus,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._distribution.image_state import summary
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._distribution.progress import (
    clock,
    failure,
    progress,
)

STATUS = TransferStatus("fetching", "registry.example", 9_216_000_000, 15_100_000_000, 112e6)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "61 %, 9,216 of 15,100 MB from registry.example, 112.0 MB/s, 0:53 left"),
        ({"done": 5e6, "total": None, "rate": 1e6}, "5.0 MB from registry.example, 1.0 MB/s"),
        ({"total": None, "rate": 0.0, "source": ""}, "9,216 MB"),
        ({"phase": "waiting"}, "waiting for its source"),
        ({"phase": "verifying", "done": 2e6, "total": 2e6}, "100 %, 2.0 of 2.0 MB, verifying"),
        ({"phase": "loading", "rate": 0.0}, "loading, 61 %, 9,216 of 15,100 MB"),
        ({"phase": "loading", "done": 15_100_000_000}, "Docker unpacks 15,100 MB"),
        ({"phase": "complete", "done": 2e6, "total": 2e6}, "100 %, 2.0 of 2.0 MB, complete"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_progress(changes: dict[str, Any], line: str) -> None:
    assert progress(replace(STATUS, **changes)) == line


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (754, "12:34"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_failure_is_its_finding_with_the_server_and_what_is_kept() -> None:
    found = TRANSFER_CHECKS.finding("image-registry-login", seen="r refuses x")
    status = replace(STATUS, phase="failed", finding=found)
    assert failure("a", status, "image-transfer-gone") == replace(found, host="a")
    assert summary("x:1", "a", status) == (
        "a did not get x:1. 9216 MB are kept, from which the next run resumes."
    )


@pytest.mark.parametrize("code", ["image-transfer-gone", "weights-transfer-gone"])
def test_a_process_that_is_gone_is_no_silent_success(code: str) -> None:
    found = failure("decode1", TransferStatus("gone"), code)
    assert (found.code, found.host, found.severity) == (code, "decode1", "error")
    assert found.cure


def test_the_rate_is_that_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock_now[0])
    rate, seen = Rate(window=10.0), []
    for second, done in ((0, 0), (5, 50), (10, 100), (20, 100), (30, 100)):
        clock_now[0] = float(second)
        seen.append(rate.at(done))
    assert seen == [0.0, 10.0, 10.0, 0.0, 0.0]
    rate.restart()
    assert rate.at(0) == 0.0
