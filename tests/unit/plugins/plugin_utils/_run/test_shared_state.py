# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the workers of a run let each other know."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run.shared_state import SharedState


def test_what_one_worker_puts_another_gets(tmp_path: Path) -> None:
    one, other = SharedState(tmp_path / "state"), SharedState(tmp_path / "state")
    one.put("host.decode1", {"port": 1})
    one.put("host.decode1", {"port": 2})
    other.put("host.prefill1", {"port": 3})
    other.put("token", "x")
    assert other.get("host.decode1") == {"port": 2}
    assert one.values("host.") == [{"port": 2}, {"port": 3}]
    assert one.get("none") is None


def test_the_first_value_stays(tmp_path: Path) -> None:
    state = SharedState(tmp_path / "state")
    assert [state.first("begun", value) for value in (1.5, 2.5)] == [1.5, 1.5]


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    state = SharedState(tmp_path / "state")
    state.put("token", "secret")
    assert [
        path.stat().st_mode & 0o077 for path in (tmp_path / "state", *(tmp_path / "state").iterdir())
    ] == [0, 0]
