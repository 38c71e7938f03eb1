# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The guards of a run: their program, configuration and secret, and which of them are not as planned."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleFilterError
from ansible_collections.ascend.pd_rollout.plugins.action import guard as action
from ansible_collections.ascend.pd_rollout.plugins.filter.guard_digests import guard_digests
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run.fast_script import sources
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._serving import guard_program, guards

SETTINGS = {"attempts": 5, "pause": 10, "probe": 5, "stall": 8, "hang": 60, "canary": 60, "answer": 10}
GUARD: dict[str, Any] = {
    "unit": "pd-guard",
    "directory": "/etc/pd_rollout/pd/guard",
    "run": "/run/pd-guard",
    "host": "198.51.100.1",
    "port": 8007,
    "service": "[Unit]\n",
    "config": {"deployment": "pd", "routers": [{"script": "export TOKEN=s3cret"}]},
}


def test_the_archive_has_all_that_the_guard_imports() -> None:
    with zipfile.ZipFile(io.BytesIO(guard_program.program())) as archive:
        names = archive.namelist()
        assert {one.date_time for one in archive.infolist()} == {guard_program.EPOCH}
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
    assert names == sorted(names)
    assert len(names) == len(sources(guard_program.ENTRY)) + 1
    assert {"__main__.py", "pd_guard/__init__.py", "pd_guard/_guard/main.py"} <= {*names}
    assert not [name for name in names if name.endswith("_module.py")]


def test_it_is_the_same_bytes_each_time() -> None:
    first, digest = guard_program.program(), guard_program.program_sha256()
    guard_program.program.cache_clear()
    guard_program.program_sha256.cache_clear()
    assert guard_program.program() == first
    assert guard_program.program_sha256() == digest


def test_python_runs_it_in_isolation(tmp_path: Path) -> None:
    path = tmp_path / "pd-guard.pyz"
    path.write_bytes(guard_program.program())
    done = subprocess.run(
        [sys.executable, "-I", str(path), "nothing"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr[:6]) == (64, "usage:")


def test_settings_are_the_same_however_they_are_written() -> None:
    texts = {name: f" {value}.0" for name, value in SETTINGS.items()}
    assert guard_program.config(GUARD, texts) == guard_program.config(GUARD, SETTINGS)
    half = guard_program.config(GUARD, {**SETTINGS, "pause": "0.5"})
    assert '"pause": 0.5' in half


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("pause", value) for value in (0, -1, "soon", None, True, "nan", "inf")),
        ("attempts", 2.5),
        ("probes", 5),
    ],
)
def test_other_settings_are_refused(name: str, value: Any) -> None:
    settings = {**SETTINGS, name: value}
    with pytest.raises(AnsibleFilterError, match=r"guard_|settings"):
        guard_digests({}, settings)
    with pytest.raises(AnsibleActionFail, match=r"guard_|settings"):
        action._made(GUARD, settings)


def test_the_filter_tells_nothing_of_the_configuration() -> None:
    found = guard_digests(GUARD, SETTINGS)
    assert found.keys() == {"unit", "directory", "run", "service", "digests"}
    assert found["digests"].keys() == {"pd-guard.pyz", "guard.json"}
    assert "s3cret" not in str(found)
    assert guard_digests({}, SETTINGS) == {}


def test_the_action_brings_program_and_configuration() -> None:
    made = action._made(GUARD, SETTINGS)
    assert "s3cret" in made["config"] and "s3cret" not in str(made["guard"])
    assert made["program"] and made["settings"] == {}


def test_the_secret_of_the_most_servers_is_that_of_all() -> None:
    assert guards.shared_secret(["a", "", "b", "b"]) == "b"
    assert guards.shared_secret(["", "a", "b"]) == "a"


def test_without_a_secret_a_new_one_is_made() -> None:
    made = {guards.shared_secret(["", ""]) for _ in range(2)}
    assert len(made) == 2
    assert all(len(secret) == 64 for secret in made)


def look(*, settled: bool = True, secret_id: str = "1f") -> dict[str, Any]:
    return {"guard": {"settled": settled, "secret_id": secret_id}}


PLAN: dict[str, Any] = {"hosts": {"server1": {"guard": GUARD}, "server2": {"guard": GUARD}, "server3": {}}}


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ({"server1": look(), "server2": look(), "server3": look()}, []),
        ({"server1": look(), "server2": look(settled=False)}, ["server2"]),
        ({"server1": look(), "server3": look(settled=False)}, ["server3"]),
        ({"server1": look(), "server2": look(secret_id="2f")}, ["server1", "server2"]),
        # One that is not planned is removed, whatever its secret.
        ({"server1": look(), "server3": look(secret_id="2f")}, []),
        ({"server1": {}, "server4": {}}, []),
    ],
    ids=["all", "one", "left", "secrets", "unplanned", "unknown"],
)
def test_which_guards_are_not_as_planned(looks: dict[str, Any], expected: list[str]) -> None:
    assert guards.unsettled(PLAN, looks) == expected
