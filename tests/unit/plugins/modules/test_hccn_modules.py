# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The modules hccn_check and hccn_ping as Ansible calls them, with scripts in place of the tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ascend.pd_rollout.plugins.modules import hccn_check, hccn_ping

PING = 'case "$6" in 192.168.1.9) echo This pkt ping failed;; *) echo This pkt ping success;; esac'


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def call(module, capsys: pytest.CaptureFixture[str], **arguments) -> dict:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


def test_no_chips_nothing_asked(capsys, tmp_path) -> None:
    result = call(hccn_check, capsys, chips=[], hccn_tool=str(tmp_path / "none"))
    assert (result["ok"], result["findings"], result["changed"]) == (True, [], False)


@pytest.mark.parametrize("arguments", [{"timeout": 0}, {"chips": [-1]}], ids=["timeout", "chip"])
def test_arguments_that_make_no_sense(capsys, arguments) -> None:
    assert call(hccn_check, capsys, **arguments)["failed"]


@pytest.mark.parametrize("fail", [True, False])
def test_errors_fail_where_asked(capsys, tmp_path, fail) -> None:
    nothing = str(tmp_path / "nothing")
    result = call(
        hccn_check, capsys, chips=[0], hccn_tool=nothing, npu_smi=nothing, hccn_conf=nothing, fail=fail
    )
    assert result.get("failed", False) is fail
    assert not result["ok"]
    assert {one["code"] for one in result["findings"]} >= {"hccn-tool-missing", "hccn-conf-missing"}
    assert "ERROR   hccn-tool-missing: hccn_tool is not there" in result["msg"]


def test_failed_pings_are_results(capsys, tmp_path) -> None:
    tool = script(tmp_path / "hccn_tool", PING)
    targets = {"0": ["192.168.1.1", "192.168.1.9"], "3": ["192.168.1.4"]}
    result = call(hccn_ping, capsys, targets=targets, hccn_tool=tool)
    assert result["count"] == 3
    assert result["failed_pings"] == [{"chip": 0, "address": "192.168.1.9", "seen": "This pkt ping failed"}]


def test_targets_that_are_no_addresses(capsys) -> None:
    result = call(hccn_ping, capsys, targets={"0": ["; reboot"]})
    assert result["failed"]
    assert "IPv4" in result["msg"]
