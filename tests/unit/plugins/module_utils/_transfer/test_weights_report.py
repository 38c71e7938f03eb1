# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a server reports of its copy of the weights."""

from __future__ import annotations

import json

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.catalogue import TRANSFER_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_files import (
    FileState,
    read_manifest,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_report import Report


@pytest.fixture
def report(tmp_path):
    staging = tmp_path / "staging"
    staging.mkdir()
    made = Report(tmp_path, staging)
    made.make_public_folder()
    return made


def test_the_controller_and_other_servers_see_the_same_status(report, tmp_path):
    (tmp_path / "staging" / "a").write_bytes(b"12345")
    report.count_received(3)
    report.count_received(4)
    report.measure()
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["done"], status["received"]) == (5, 7)
    assert json.loads((tmp_path / "public" / "status.json").read_text()) == status


def test_the_log_has_each_phase_and_the_reason_of_a_failure(report, capsys):
    report.update(phase="fetching", source="s1")
    report.update(phase="fetching", done=5)
    report.fail(TRANSFER_CHECKS.finding("weights-disk-full", path="/w"))
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "{'phase': 'fetching', 'source': 's1'}"
    assert lines[1].startswith("{'phase': 'failed', 'finding': {'code': 'weights-disk-full', ")
    assert len(lines) == 2


def test_a_manifest_goes_on_once_it_is_known(report, tmp_path):
    published = tmp_path / "public" / "manifest.json"
    report.publish({})
    assert read_manifest(published) == {}
    manifest = {"a": FileState(3, 1), "sub/b": FileState(4, 2)}
    report.publish(manifest)
    assert report.size == 7
    assert read_manifest(published) == manifest
    assert json.loads(published.read_text())["a"] == {"size": 3, "mtime_ns": 1}
