# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Revisions on disk: complete or not there, root's alone, ten of them, and removed with the deployment."""

from __future__ import annotations

import json

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files import safe_paths
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import history

NOWHERE = {"docker_socket": "/nonexistent", "_check_mode": False}


def record(number, **more):
    return {"revision": number, "deployment": "pd", "image": {"reference": "image", "ids": []}, **more}


@pytest.fixture
def directory(tmp_path):
    """The directory of a deployment on a server, with the revisions 1 and 2."""
    folder = tmp_path / "etc" / "pd"
    safe_paths.make(str(folder), "directory")
    for number in (1, 2):
        assert history.write(folder / "history", record(number), f'{{"plan": {number}}}')
    return folder


def names(directory):
    return sorted(entry.name for entry in (directory / "history").iterdir())


def test_only_its_owner_can_read_a_revision(directory):
    modes = {
        path.relative_to(directory).as_posix(): path.stat().st_mode & 0o777
        for path in (directory / "history").rglob("*")
        if "0001" in path.parts
    }
    assert modes == {
        "history/0001": 0o700,
        "history/0001/plan.json": 0o600,
        "history/0001/revision.json": 0o600,
    }
    assert (directory / "history").stat().st_mode & 0o777 == 0o700


def test_a_revision_is_written_once(directory):
    assert not history.write(directory / "history", record(2, who="another"), "{}")
    assert "who" not in history.read(directory / "history", 2)


def test_ten_are_kept(directory):
    for number in range(3, 13):
        history.write(directory / "history", record(number), "{}")
    assert history.numbers(directory / "history") == list(range(3, 13))
    assert names(directory) == [f"{number:04d}" for number in range(3, 13)]


@pytest.mark.parametrize("at", ["plan.json", "revision.json", "rename"])
def test_an_interrupted_write_leaves_no_half_revision(directory, monkeypatch, at):
    whole = history._write

    def ended(path, *_):
        if path.name == at:
            raise KeyboardInterrupt
        whole(path, *_)

    monkeypatch.setattr(history, "_write", ended)
    if at == "rename":
        monkeypatch.setattr(history.Path, "rename", lambda *_: ended(history.Path(at)))
    with pytest.raises(KeyboardInterrupt):
        history.write(directory / "history", record(3), "{}")
    assert history.numbers(directory / "history") == [1, 2]
    assert history.newest(directory / "history")["revision"] == 2
    assert names(directory) == [".0003", "0001", "0002"]
    # The draft is the deployment's, and the next write removes it.
    assert safe_paths.is_ours(f"{directory}/history")
    monkeypatch.undo()
    assert history.write(directory / "history", record(3), "{}")
    assert names(directory) == ["0001", "0002", "0003"]


def test_what_cannot_be_read_is_no_revision(directory, tmp_path):
    (directory / "history" / "0002" / "revision.json").write_text("{")
    assert history.newest(directory / "history")["revision"] == 1
    assert [one["revision"] for one in history.records(directory / "history")] == [1]
    assert history.newest(tmp_path / "none") is None
    assert history.records(tmp_path / "none") == []
    # Its number is taken nevertheless.
    assert history.numbers(directory / "history") == [1, 2]


def test_removal_of_a_deployment_takes_its_revisions_along(directory):
    assert safe_paths.remove(str(directory), "directory") == (True, [])
    assert not directory.exists()


@pytest.mark.parametrize("name", ["notes.txt", "0003", "2024"])
def test_what_others_put_between_them_stays(directory, name):
    other = directory / "history" / name
    other.write_text("mine") if "." in name else other.mkdir()
    assert safe_paths.remove(str(directory), "directory") == (False, ["history"])
    assert other.exists()
    assert history.numbers(directory / "history")[:2] == [1, 2]


def test_a_link_is_no_history(directory, tmp_path):
    (directory / "history").rename(tmp_path / "elsewhere")
    (directory / "history").symlink_to(tmp_path / "elsewhere")
    assert not safe_paths.is_ours(f"{directory}/history")


def test_a_server_tells_its_revisions_also_without_a_docker_engine(directory):
    options = {**NOWHERE, "deployment": "pd", "directory": str(directory), "revision": 0}
    found = history.info(options)
    assert [one["revision"] for one in found["revisions"]] == [1, 2]
    assert (found["containers"], found["images"], found["front"], found["drained"]) == ([], {}, "", "")
    assert found["plan"] == ""
    assert json.loads(history.info({**options, "revision": 2})["plan"]) == {"plan": 2}
    missing = history.info({**options, "revision": 7})
    assert missing["failed"]
    assert missing["msg"].startswith("revision 7: ")


def test_a_server_keeps_a_revision(directory):
    options = {"directory": str(directory), "record": record(3), "folder": "", "plan": "{}"}
    assert history.keep({**options, "_check_mode": True}) == {"changed": True}
    assert history.numbers(directory / "history") == [1, 2]
    assert history.keep({**options, "_check_mode": False}) == {"changed": True}
    assert history.keep({**options, "_check_mode": False}) == {"changed": False}


def test_a_revision_that_cannot_be_written_is_a_finding(directory, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "_write", full)
    options = {"directory": str(directory), "record": record(3), "folder": "", "plan": "{}"}
    result = history.keep({**options, "_check_mode": False})
    assert result["failed"]
    (finding,) = result["findings"]
    assert (finding["code"], finding["seen"]) == ("engine-revision-unwritten", "No space left on device")


@pytest.mark.parametrize("function", [history.info, history.keep])
def test_a_directory_of_the_system_is_refused(function):
    options = {**NOWHERE, "deployment": "pd", "directory": "/etc/x", "revision": 0, "record": record(1)}
    assert function(options)["findings"][0]["code"] == "folder-path-invalid"


def test_the_list_of_hashes_beside_the_weights(tmp_path):
    assert history.weights(str(tmp_path)) == ""
    (tmp_path / "SHA256SUMS").write_text("0  model.safetensors\n")
    assert len(history.weights(str(tmp_path))) == 64
