# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The secret of a run: one for all its workers, another one for each run, and in nobody else's sight."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action import host_check, host_reach
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import run_token as r


def test_workers_that_ask_at_once_get_one_and_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _at: r.run_token(str(tmp_path)), range(64)))
    assert len(found) == 1
    assert len(found.pop()) == 64
    (left,) = tmp_path.iterdir()
    assert stat.S_IMODE(left.stat().st_mode) == 0o600


def test_another_run_has_another(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert r.run_token(str(tmp_path / "one")) != r.run_token(str(tmp_path / "other"))


def test_the_checks_tell_it_to_servers_and_modules_do_not_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(r.constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    told = {
        action.ActionModule._own_arguments(None)["token"]  # type: ignore[arg-type]
        for action in (host_check, host_reach)
    }
    assert told == {r.run_token()}
    for action in (host_check, host_reach):
        assert action.ActionModule.WORK.arguments["token"]["no_log"] is True


def test_it_is_the_run_s_own_folder() -> None:
    place = Path(r.constants.DEFAULT_LOCAL_TMP)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert place.stat().st_uid == os.getuid()
