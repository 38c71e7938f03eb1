# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The front's files: what they hold, and how they are compared and replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.filter.front_digests import front_digests
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files import own_files
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files.contents import text_sha256
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front import files

FRONT: dict[str, Any] = {
    "unit": "pd-front",
    "config": "global\n",
    "service": "[Unit]\n",
    "lua": None,
    "tls": True,
    "keys": True,
    "engine_key": True,
    "host": "198.51.100.1",
    "port": 8443,
    "packages": ["haproxy"],
}


def wanted(**changes: Any) -> dict[str, str | None]:
    return files.wanted({**FRONT, **changes}, "PEM", {"ab": "alice", "0c": "bob"}, "secret")


def test_each_file_holds_its_part() -> None:
    assert wanted() == {
        "haproxy.cfg": "global\n",
        "front.pem": "PEM",
        "keys.lua": None,
        "keys.map": "0c bob\nab alice\n",
        "engines.map": "engines secret\n",
        "keepalived.conf": None,
        "serves.py": None,
    }


def test_what_the_plan_does_not_have_must_not_be_there() -> None:
    found = wanted(tls=False, keys=False, engine_key=False)
    assert [name for name, text in found.items() if text is not None] == ["haproxy.cfg"]


def test_a_server_learns_digests_only() -> None:
    found = front_digests(FRONT, "PEM", {"alice": "ab"}, "secret")
    assert found["front"]["units"] == {"pd-front": text_sha256("[Unit]\n")}
    assert found["digests"]["front.pem"] == text_sha256("PEM")
    assert found["digests"]["keys.lua"] == ""
    assert not any(secret in str(found) for secret in ("PEM", "secret", "alice"))
    assert not any(digest in str(found["front"]) for digest in found["digests"].values() if digest)
    assert front_digests(None, "", {}, "") == {}


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder: None, []),
        (lambda folder: (folder / "front.pem").write_text("other"), ["front.pem"]),
        (lambda folder: (folder / "keys.map").unlink(), ["keys.map"]),
        (lambda folder: (folder / "haproxy.cfg").chmod(0o644), ["haproxy.cfg"]),
        (lambda folder: (folder / "keys.lua").write_text(""), ["keys.lua"]),
    ],
    ids=["as it must be", "another text", "gone", "readable", "not planned"],
)
def test_files_that_differ_are_found(tmp_path: Path, spoil: Any, expected: list[str]) -> None:
    texts = wanted()
    for name, text in texts.items():
        if text is not None:
            own_files.write(tmp_path / name, text)
    spoil(tmp_path)
    assert own_files.outdated(tmp_path, files.digests(texts)) == expected


def test_a_link_in_a_files_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("before")
    (tmp_path / ".front.pem.new").symlink_to(tmp_path / "elsewhere")
    own_files.write(tmp_path / "front.pem", "PEM")
    assert (tmp_path / "elsewhere").read_text() == "before"
    assert (tmp_path / "front.pem").read_text() == "PEM"
    assert (tmp_path / "front.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("active green\n", "green"),
        ("active blue", "blue"),
        ("active blue\nclosed no decoder answers\n", "blue"),
        ("closed no decoder answers\nactive green\n", "green"),
        ("active red\n", None),
        ("", None),
        ("x y z", None),
    ],
)
def test_the_active_colour_is_read_from_the_map(tmp_path: Path, text: str, colour: str | None) -> None:
    (tmp_path / "router.map").write_text(text)
    assert files.active(tmp_path) == colour


def test_without_a_map_no_router_is_active(tmp_path: Path) -> None:
    assert files.active(tmp_path) is None
    assert files.closed(tmp_path) == ""


def test_why_a_front_is_closed_stands_in_the_map(tmp_path: Path) -> None:
    (tmp_path / "router.map").write_text(files.router_map("green", "no decoder answers"))
    assert (tmp_path / "router.map").read_text() == "active green\nclosed no decoder answers\n"
    assert files.active(tmp_path) == "green" and files.closed(tmp_path) == "no decoder answers"
    (tmp_path / "router.map").write_text(files.router_map("green"))
    assert (tmp_path / "router.map").read_text() == "active green\n"
    assert files.closed(tmp_path) == ""


@pytest.mark.parametrize(
    ("reason", "written"),
    [
        ("two\nlines\r and\ttabs", "two lines and tabs"),
        ("d\u00e9codeur \u2192 x", "d codeur x"),
        (" \n", ""),
    ],
)
def test_a_reason_is_one_line(reason: str, written: str) -> None:
    assert files.router_map("blue", reason) == "active blue\n" + (f"closed {written}\n" if written else "")
