# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The modules of a router on its server: complete or absent, and nobody else's."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files import safe_paths
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import router_modules
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.router_modules import (
    is_complete,
    leftovers,
)

NAME = "vllm-router-0.1.17-0123456789ab"


def wheel(**members: str) -> bytes:
    """A wheel with these members."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/") + ".py", text)
    return written.getvalue()


WHEELS = {"router.whl": wheel(router__main="1"), "json.whl": wheel(json__fast="2")}
PINS = {name: hashlib.sha256(content).hexdigest() for name, content in WHEELS.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pd" / NAME


def call(path: Path, stage: str, check_mode: bool = False, machine: str | None = None) -> dict[str, Any]:
    wheels = {machine or platform.machine(): PINS}
    return router_modules.work(
        {"path": str(path), "wheels": wheels, "stage": stage, "_check_mode": check_mode}
    )


def bring(incoming: str, contents: dict[str, bytes] | None = None) -> None:
    for name, content in (contents or WHEELS).items():
        Path(incoming, name).write_bytes(content)


def make(path: Path) -> None:
    bring(call(path, "begin")["incoming"])
    assert "failed" not in call(path, "finish")


def codes(result: dict[str, Any]) -> list[str]:
    assert result["failed"], result
    return [finding["code"] for finding in result["findings"]]


def test_wheels_are_unpacked_into_one_directory(path: Path) -> None:
    begun = call(path, "begin")
    assert (begun["changed"], begun["complete"], begun["machine"]) == (True, False, platform.machine())
    bring(begun["incoming"])
    assert not path.exists()
    assert call(path, "finish")["changed"]
    assert (path / "router" / "main.py").read_text() == "1"
    assert (path / "json" / "fast.py").read_text() == "2"
    assert not (path / "wheels").exists()
    assert not path.with_name(f".{NAME}").exists()
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_second_call_changes_nothing(path: Path) -> None:
    make(path)
    again = call(path, "begin")
    assert (again["changed"], again["complete"], again["incoming"]) == (False, True, "")


def test_check_mode_makes_nothing(path: Path) -> None:
    for stage in ("look", "begin", "finish"):
        assert call(path, stage, check_mode=True)["changed"]
    assert not path.parent.exists()


def test_a_look_makes_nothing(path: Path) -> None:
    assert (call(path, "look")["complete"], path.parent.exists()) == (False, False)
    make(path)
    assert call(path, "look")["complete"]


def test_an_interrupted_run_is_begun_again(path: Path) -> None:
    bring(call(path, "begin")["incoming"], {"router.whl": b"half of"})
    assert not is_complete(str(path), PINS, os.geteuid())
    make(path)
    assert is_complete(str(path), PINS, os.geteuid())


def test_other_wheels_are_another_directory(path: Path) -> None:
    make(path)
    assert not is_complete(str(path), {**PINS, "router.whl": "0" * 64}, os.geteuid())
    assert not is_complete(str(path), PINS, os.geteuid() + 1)
    path.chmod(0o755)
    assert not is_complete(str(path), PINS, os.geteuid())


@pytest.mark.parametrize(
    ("name", "content"),
    [("router.whl", b"something else"), ("json.whl", b"")],
    ids=["replaced", "empty"],
)
def test_a_wheel_with_another_hash_is_not_unpacked(path: Path, name: str, content: bytes) -> None:
    bring(call(path, "begin")["incoming"], {**WHEELS, name: content})
    assert codes(call(path, "finish")) == ["router-wheel-wrong"]
    assert not path.exists()


@pytest.mark.parametrize("member", ["../outside", "/outside"])
def test_a_wheel_cannot_write_elsewhere(path: Path, member: str, tmp_path: Path) -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(member, "x")
    (tmp_path / "bad.whl").write_bytes(written.getvalue())
    with pytest.raises(router_modules.Unpackable, match="outside"):
        router_modules.unpack(tmp_path / "bad.whl", tmp_path / "inside")


def test_what_is_no_wheel_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "bad.whl").write_bytes(b"no zip file")
    with pytest.raises(router_modules.Unpackable, match="router-wheel-wrong"):
        router_modules.unpack(tmp_path / "bad.whl", tmp_path / "inside")


def test_an_architecture_without_wheels_is_a_finding(path: Path) -> None:
    result = call(path, "begin", machine="riscv64")
    assert codes(result) == ["router-machine-unknown"]
    assert result["findings"][0]["seen"] == platform.machine()


def test_what_somebody_else_made_is_not_replaced(path: Path) -> None:
    make(path)
    (path / "made-from").unlink()
    assert codes(call(path, "begin")) == ["folder-not-empty"]
    assert (path / "router" / "main.py").exists()


def test_another_name_is_refused(path: Path) -> None:
    assert codes(call(path.with_name("scripts"), "begin")) == ["folder-name-invalid"]


def test_a_full_disk_is_a_finding(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(call(path, "begin")["incoming"])

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(router_modules, "unpack", full)
    result = call(path, "finish")
    assert codes(result) == ["router-modules-unwritten"]
    assert "No space left on device" in result["msg"]


def test_only_directories_of_ours_are_left_over(path: Path) -> None:
    make(path)
    folder = path.parent
    (folder / "vllm-router-notes").mkdir()
    (folder / "vllm-router-link").symlink_to(path)
    assert leftovers(str(folder), []) == [str(path)]
    assert leftovers(str(folder), [str(path)]) == []
    assert leftovers(str(folder / "none"), []) == []


def test_the_directory_goes_with_the_deployment(path: Path) -> None:
    make(path)
    call(path.with_name("vllm-router-0.1.18-0123456789ab"), "begin")
    assert safe_paths.remove(str(path.parent), "pd_host_dir") == (True, [])
    assert not path.parent.exists()


def test_a_directory_of_somebody_else_stays(path: Path) -> None:
    make(path)
    other = path.with_name("vllm-router-notes")
    other.mkdir()
    assert safe_paths.remove(str(path.parent), "pd_host_dir") == (True, ["vllm-router-notes"])
    assert other.exists()
    assert not path.exists()
