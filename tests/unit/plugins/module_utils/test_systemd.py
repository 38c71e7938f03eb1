# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Units of systemd that this collection writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils import _systemd as systemd
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files import own_files
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files.contents import text_sha256


def test_a_unit_of_another_is_foreign(tmp_path: Path) -> None:
    unit = tmp_path / "pd-front.service"
    assert not systemd.foreign(unit)
    unit.write_text("[Unit]\n")
    assert systemd.foreign(unit)
    unit.write_text("# Written by ascend.pd_rollout: change the inventory.\n")
    assert not systemd.foreign(unit)


def test_a_unit_that_differs_is_outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "UNITS", str(tmp_path))
    own_files.write(systemd.unit_path("pd-front"), "[Unit]\n", systemd.UNIT_MODE)
    assert systemd.units_outdated({"pd-front": text_sha256("[Unit]\n"), "pd-guard": "1f"}) == ["pd-guard"]
    assert systemd.units_outdated({"pd-front": text_sha256("other")}) == ["pd-front"]


def test_a_command_that_is_not_there_has_a_status_of_its_own() -> None:
    assert systemd.run(["/nowhere/systemctl"])[0] == 127


@pytest.mark.parametrize("becomes", [True, False])
def test_what_becomes_true_is_awaited_until_the_time_is_up(*, becomes: bool) -> None:
    answers = iter([False, becomes])
    assert systemd.within(systemd.POLL / 2, lambda: next(answers)) is becomes
