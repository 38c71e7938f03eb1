# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The module host_reach: what it returns, and that chips ping while it connects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.ascend.pd_rollout.plugins.module_utils._host import reach

NOTHING: dict[str, Any] = {
    "targets": [],
    "timeout": 1.0,
    "name": "",
    "token": "",
    "listener": None,
    "patience": 0.0,
    "stop": None,
}


def test_without_pings_there_are_none() -> None:
    assert "pings" not in reach.reach({**NOTHING, "pings": None})


def test_pings_and_connections_are_one_result(tmp_path: Path) -> None:
    tool = tmp_path / "hccn_tool"
    tool.write_text(
        "#!/bin/sh\n"
        "case $* in *192.168.0.2*) printf '3 packets transmitted, 3 received, 0.00%% packet loss\\n' ;;\n"
        "*) printf '3 packets transmitted, 0 received, 100.00%% packet loss\\n' ;; esac\n"
    )
    tool.chmod(0o755)
    pings = {
        "targets": {"0": ["192.168.0.2"], "1": ["192.168.0.2", "192.168.0.3"]},
        "kind": "ping",
        "timeout": 10.0,
        "hccn_tool": str(tool),
    }
    target = {"server": "d1", "address": "127.0.0.1", "port": 1}
    result = reach.reach({**NOTHING, "targets": [target], "pings": pings})
    assert result["count"] == 1
    assert [found["server"] for found in result["unreachable_ports"]] == ["d1"]
    assert result["pings"]["count"] == 3
    assert [(found["chip"], found["address"]) for found in result["pings"]["failed_pings"]] == [
        (1, "192.168.0.3")
    ]
