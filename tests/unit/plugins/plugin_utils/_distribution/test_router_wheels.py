# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Wheels of a router on the controller, with a pip that is a script."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._distribution import router_wheels
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._distribution.router_wheels import (
    WheelError,
    pip_words,
    provided,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.routers import vllm_router

NAME = "vllm_router-0.1.17-cp38-abi3-manylinux_2_28_aarch64.whl"
CONTENT = b"a wheel"
PINS = {NAME: hashlib.sha256(CONTENT).hexdigest()}


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python whose pip writes what is in a file, and notes each call; without that file it fails."""
    program = tmp_path / "python"
    program.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
for folder; do :; done
if [ -e {tmp_path}/served ]; then cp {tmp_path}/served "$folder/{NAME}"; exit; fi
echo "ERROR: No matching distribution found for vllm-router==0.1.17" >&2
exit 1
""",
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(router_wheels.sys, "executable", str(program))
    return tmp_path


def calls(pip: Path) -> int:
    noted = pip / "calls"
    return len(noted.read_text().splitlines()) if noted.exists() else 0


def codes(error: WheelError) -> list[str]:
    return [finding.code for finding in error.findings]


def test_a_wheel_is_fetched_once(pip: Path) -> None:
    (pip / "served").write_bytes(CONTENT)
    for _ in range(2):
        assert provided(PINS, cache=pip / "cache")[NAME].read_bytes() == CONTENT
    assert calls(pip) == 1
    assert sorted(path.name for path in (pip / "cache").iterdir()) == [".lock", NAME]


def test_a_damaged_wheel_in_the_cache_is_fetched_again(pip: Path) -> None:
    (pip / "served").write_bytes(CONTENT)
    (pip / "cache").mkdir()
    (pip / "cache" / NAME).write_bytes(b"half")
    assert provided(PINS, cache=pip / "cache")[NAME].read_bytes() == CONTENT


def test_without_a_package_index_pip_is_quoted(pip: Path) -> None:
    with pytest.raises(WheelError) as caught:
        provided(PINS, cache=pip / "cache")
    assert codes(caught.value) == ["router-wheels-unfetched"]
    assert "No matching distribution" in str(caught.value.finding.seen)


def test_without_pip_it_is_said(pip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_wheels.sys, "executable", str(pip / "no-python"))
    with pytest.raises(WheelError) as caught:
        provided(PINS, cache=pip / "cache")
    assert codes(caught.value) == ["router-wheels-unfetched"]
    assert "pd_router_wheels" in caught.value.finding.cure


def test_another_wheel_than_the_pinned_one_is_not_kept(pip: Path) -> None:
    (pip / "served").write_bytes(b"something else")
    with pytest.raises(WheelError) as caught:
        provided(PINS, cache=pip / "cache")
    assert codes(caught.value) == ["router-wheel-wrong"]
    assert not (pip / "cache" / NAME).exists()


def test_a_cache_that_cannot_be_written_is_a_finding(pip: Path) -> None:
    (pip / "cache").write_text("a file")
    with pytest.raises(WheelError) as caught:
        provided(PINS, cache=pip / "cache")
    assert codes(caught.value) == ["router-wheels-unfetched"]


def test_a_named_directory_is_used_without_pip(pip: Path) -> None:
    (pip / NAME).write_bytes(CONTENT)
    assert provided(PINS, str(pip)) == {NAME: pip / NAME}
    assert calls(pip) == 0


def test_all_that_is_wrong_in_a_named_directory_is_reported(pip: Path) -> None:
    (pip / NAME).write_bytes(b"something else")
    with pytest.raises(WheelError) as caught:
        provided({**PINS, "orjson.whl": "0" * 64}, str(pip))
    assert sorted(codes(caught.value)) == ["router-wheel-missing", "router-wheel-wrong"]
    assert {finding.variable for finding in caught.value.findings} == {"pd_router_wheels"}


def test_pip_is_told_the_servers_platform() -> None:
    words = pip_words("orjson-3.13.0-cp312-cp312-manylinux_2_17_aarch64.manylinux2014_aarch64.whl")
    assert words[-1] == "orjson==3.13.0"
    assert words[words.index("--python-version") + 1] == "312"
    assert words[words.index("--abi") + 1] == "cp312"
    assert words.count("--platform") == 2


def test_the_name_of_each_planned_wheel_can_be_read() -> None:
    for wheels in vllm_router().wheels.values():
        assert all(pip_words(name) for name in wheels)
