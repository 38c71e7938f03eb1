# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What others could change is no place to work in, and what is sane is refused to nobody. Run as root."""

from __future__ import annotations

import grp
import json
import os
import pwd
import struct
from types import SimpleNamespace

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files import private_folder, safe_paths
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files.private_folder import UnsafeFolder
from ansible_collections.ascend.pd_rollout.plugins.module_utils._findings import Finding
from ansible_collections.ascend.pd_rollout.plugins.modules import private_folder as module

NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.delenv("SUDO_GID", raising=False)


def refused(path) -> Finding:
    with pytest.raises(UnsafeFolder) as told:
        private_folder.ensure(str(path))
    assert not private_folder.is_ours(str(path))
    finding = told.value.finding
    assert all(getattr(finding, key) for key in ("code", "path", "seen", "expected", "cure")), finding
    return finding


def test_a_folder_is_made_for_root_alone_with_folders_above_that_others_can_pass(tmp_path):
    path = tmp_path / "data" / "pd" / "image"
    before = os.umask(0)
    try:
        assert private_folder.ensure(str(path)) == path
    finally:
        os.umask(before)
    assert [entry.stat().st_mode & 0o7777 for entry in (path.parent, path)] == [0o755, 0o700]
    assert private_folder.is_ours(str(path))


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o711, 0o2755, 0o775], ids=oct)
def test_a_data_disk_of_root_is_fine_and_stays_as_it_is(tmp_path, mode):
    """0775 of group root, too: its members are root's own."""
    disk = tmp_path / "data"
    disk.mkdir()
    disk.chmod(mode)
    private_folder.ensure(str(disk))
    private_folder.ensure(str(disk / "image"))
    assert disk.stat().st_mode & 0o7777 == mode


def test_below_a_folder_for_all_with_sticky_bit_what_root_has_made_is_fine(tmp_path):
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    private_folder.ensure(str(shared / "image"))
    # In itself everybody can put files.
    assert refused(shared).code == "folder-writable-by-others"


def test_a_folder_that_somebody_else_made_first_is_refused(tmp_path):
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    planted = shared / "image"
    planted.mkdir(mode=0o700)
    os.chown(planted, NOBODY, -1)
    finding = refused(planted)
    assert (finding.code, finding.path) == ("folder-of-another-user", str(planted))
    assert "nobody, mode 0700" in finding.seen


@pytest.mark.parametrize(
    ("mode", "group", "seen"),
    [(0o777, 0, "all users"), (0o775, NOBODY, "its group"), (0o757, 0, "all users")],
)
def test_a_folder_or_one_above_that_others_can_write_to_is_refused(tmp_path, mode, group, seen):
    disk = tmp_path / "data"
    disk.mkdir()
    os.chown(disk, 0, group)
    disk.chmod(mode)
    for path in (disk, disk / "image"):
        finding = refused(path)
        assert (finding.code, finding.path) == ("folder-writable-by-others", str(disk))
        assert seen in finding.seen


def test_a_home_is_fine_for_who_becomes_root_and_for_nobody_else(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    os.chown(home, NOBODY, -1)
    assert refused(home / "image").path == str(home)
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    private_folder.ensure(str(home / "image"))
    monkeypatch.setenv("SUDO_UID", str(NOBODY - 1))
    refused(home / "image")


@pytest.mark.parametrize(
    ("name", "members", "fine"),
    [
        ("nobody", [], True),
        ("nobody", ["nobody"], True),
        ("nobody", ["nobody", "bob"], False),
        ("HwHiAiUser", [], False),
        ("users", ["nobody"], False),
    ],
)
def test_the_group_of_who_becomes_root_is_fine_if_nobody_else_is_in_it(
    tmp_path, monkeypatch, name, members, fine
):
    """Where each user has a group, folders of users are made with mode 0775."""
    disk = tmp_path / "data"
    disk.mkdir()
    os.chown(disk, NOBODY, NOBODY)
    disk.chmod(0o775)
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    assert refused(disk / "image").code == "folder-writable-by-others"
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    monkeypatch.setattr(grp, "getgrgid", lambda number: SimpleNamespace(gr_name=name, gr_mem=members))
    if fine:
        private_folder.ensure(str(disk / "image"))
    else:
        assert f"its group {name} can write" in refused(disk / "image").seen
    assert (safe_paths.problem(str(disk / "pd")) is None) == fine


def test_links_of_root_are_followed_and_those_of_others_are_not(tmp_path):
    disk, shared = tmp_path / "disk", tmp_path / "tmp"
    disk.mkdir()
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "data").symlink_to("disk")
    private_folder.ensure(str(tmp_path / "data" / "image"))
    assert (disk / "image").is_dir()
    (shared / "image").symlink_to("../disk/image")
    private_folder.ensure(str(shared / "image"))
    os.chown(shared / "image", NOBODY, -1, follow_symlinks=False)
    assert refused(shared / "image").seen.startswith("a link of user nobody")


def test_what_a_link_leads_to_is_looked_at_as_well(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, -1)
    (tmp_path / "data").symlink_to(theirs)
    assert refused(tmp_path / "data" / "image").path == str(theirs)
    (tmp_path / "round").symlink_to("round")
    assert refused(tmp_path / "round").code == "folder-unreadable"


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "x").write_text("")
    assert refused(tmp_path / "x" / "image").code == "folder-is-none"


OWNER, GROUP, MASK, REST = (1, 7, -1), (4, 7, -1), (16, 7, -1), (32, 5, -1)


@pytest.mark.parametrize(
    ("rights", "fine"),
    [
        ([OWNER, GROUP, REST], True),
        ([OWNER, (2, 5, NOBODY), GROUP, MASK, REST], True),
        ([OWNER, (2, 7, 0), (8, 7, 0), GROUP, MASK, REST], True),
        ([OWNER, (2, 7, NOBODY), GROUP, (16, 5, -1), REST], True),
        ([OWNER, (2, 7, NOBODY), GROUP, MASK, REST], False),
        ([OWNER, GROUP, (8, 7, NOBODY), MASK, REST], False),
        ([(64, 7, 0)], False),
    ],
    ids=["none", "reader", "root", "masked", "user", "group", "unknown"],
)
def test_of_a_folder_with_a_list_of_rights_counts_who_may_write_by_it(tmp_path, monkeypatch, rights, fine):
    disk = tmp_path / "data"
    disk.mkdir()
    disk.chmod(0o775)
    entries = b"".join(struct.pack("<HHI", tag, bits, number % 2**32) for tag, bits, number in rights)

    def getxattr(path, name):
        assert name == "system.posix_acl_access"
        if path != str(disk):
            raise OSError(61, "No data available")
        return struct.pack("<I", 2) + entries

    monkeypatch.setattr(os, "getxattr", getxattr)
    told = safe_paths.problem(str(disk / "pd")) or ""
    if fine:
        private_folder.ensure(str(disk))
        assert told == ""
    else:
        assert "getfacl" in refused(disk).seen
        assert told.endswith("is writable by users in its access control list (getfacl)")


def test_a_group_that_may_not_write_by_the_list_is_no_matter(tmp_path, monkeypatch):
    """The mode shows what the list allows at most, here root's group; the folder's own may only read."""
    disk = tmp_path / "data"
    disk.mkdir()
    os.chown(disk, 0, NOBODY)
    disk.chmod(0o775)
    assert "its group" in refused(disk).seen
    rights = [OWNER, (4, 5, -1), (8, 7, 0), MASK, REST]
    entries = b"".join(struct.pack("<HHI", tag, bits, number % 2**32) for tag, bits, number in rights)
    monkeypatch.setattr(os, "getxattr", lambda *_: struct.pack("<I", 2) + entries)
    private_folder.ensure(str(disk))


@pytest.mark.parametrize(
    "path", ["data", "", "/", "//", "/./", "/data/../etc", "/data/x\n/y", "/data/\x1b[0m", "./data"], ids=repr
)
def test_a_path_that_leads_elsewhere_is_refused(path):
    with pytest.raises(UnsafeFolder) as told:
        private_folder.check_name(path)
    assert told.value.finding.code == "folder-path-invalid"


@pytest.mark.parametrize(
    "path", ["/data", "/data/..x/a b", "/mnt/数据/x.y/", "/data/\u3000\u00a0", "/data/$x;y"]
)
def test_a_path_of_any_other_form_is_fine(path):
    private_folder.check_name(path)


def test_a_run_clears_what_its_like_has_left_and_nothing_else(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    assert module.clear(folder, "run.sh") is False
    (folder / "run.sh").write_text("")
    (folder / "outputs").mkdir()
    (folder / "outputs" / "x.json").write_text("{}")
    assert module.clear(folder, "run.sh") is True
    assert list(folder.iterdir()) == []
    (folder / "thesis.tex").write_text("")
    with pytest.raises(UnsafeFolder, match=r"thesis\.tex"):
        module.clear(folder, "run.sh")
    assert (folder / "thesis.tex").exists()


def call(capsys, **arguments) -> dict:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


def test_the_module_says_what_is_wrong(tmp_path, capsys):
    tmp_path.chmod(0o777)
    told = call(capsys, path=str(tmp_path / "x"))
    assert told["failed"]
    assert told["findings"][0]["code"] == "folder-writable-by-others"
    assert f"chmod go-w {tmp_path}" in told["msg"]


def test_the_module_makes_it_once_and_nothing_in_check_mode(tmp_path, capsys):
    folder = tmp_path / "run"
    assert call(capsys, path=str(folder), _ansible_check_mode=True)["changed"] is True
    assert not folder.exists()
    assert [call(capsys, path=str(folder))["changed"] for _ in range(2)] == [True, False]
    (folder / "run.sh").write_text("")
    assert call(capsys, path=str(folder), cleared_by="run.sh")["changed"] is True
    assert list(folder.iterdir()) == []
