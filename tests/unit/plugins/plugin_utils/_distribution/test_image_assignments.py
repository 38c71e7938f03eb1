# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Who gets the image from where; what the screen shows; which images may go."""

from __future__ import annotations

import errno

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker import images
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.images import (
    ImageError,
    file_system,
    is_shared,
    old_names,
    plain,
    repository,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files import contents
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.catalogue import (
    TransferError,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.image_folder import (
    Folder,
    check_room,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.status import ImageStatus
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._distribution.image_assignments import (
    Request,
    decide,
    endpoints,
)
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._distribution.image_state import (
    ImageState,
)

IMAGE = "registry.example:5000/ascend/vllm-ascend:v1"


def state(right=False, image=IMAGE, archive=None, image_id=""):
    return {"image": image, "right": right, "id": image_id, "digests": [], "archive": archive}


def three(**first):
    return {"a": state(**first), "b": state(), "c": state()}


def kinds(decision):
    assignments = decision.assignments.items()
    return {host: (assignment["kind"], assignment["order"][:1]) for host, assignment in assignments}


def test_when_all_have_it_nobody_does_anything():
    states = {host: state(right=True) for host in "abc"}
    assert decide(states, Request("registry")).assignments == {}


def test_the_first_gets_it_and_the_others_make_a_chain():
    assert kinds(decide(three(), Request("registry"))) == {
        "a": ("registry", []),
        "b": ("peers", ["a"]),
        "c": ("peers", ["b"]),
    }


def test_everybody_else_is_asked_when_the_one_before_has_gone():
    states = {host: state() for host in "abcde"}
    assert decide(states, Request("registry")).assignments["d"]["order"] == ["c", "a", "b", "e"]


@pytest.mark.parametrize("source", ["registry", "archive", "none"])
def test_who_has_it_gives_it(source):
    states = {"a": state(), "b": state(right=True), "c": state()}
    assert kinds(decide(states, Request(source, archive="/x"))) == {
        "b": ("docker", []),
        "a": ("peers", ["b"]),
        "c": ("peers", ["a"]),
    }


def test_without_spreading_each_gets_it_itself():
    states = {"a": state(right=True), "b": state(), "c": state()}
    assert kinds(decide(states, Request("registry", spread=False))) == {
        "b": ("registry", []),
        "c": ("registry", []),
    }
    assert kinds(decide(states, Request("pull"))) == {"b": ("pull", []), "c": ("pull", [])}


HERE, SHARED, MISSING = (
    {"exists": True, "shared": False},
    {"exists": True, "shared": True},
    {"exists": False, "shared": False},
)


@pytest.mark.parametrize(
    ("archives", "expected"),
    [
        ([HERE, HERE, HERE], ["archive", "archive", "archive"]),
        ([SHARED, SHARED, SHARED], ["archive", "peers", "peers"]),
        ([MISSING, HERE, MISSING], ["peers", "archive", "peers"]),
        ([SHARED, HERE, SHARED], ["peers", "archive", "peers"]),
    ],
    ids=["each has it", "shared file system", "one has it", "own before shared"],
)
def test_an_archive_on_the_servers(archives, expected):
    states = {host: state(archive=archive) for host, archive in zip("abc", archives, strict=True)}
    assignments = decide(states, Request("archive", archive="/x.tar")).assignments
    assert [assignments[host]["kind"] for host in "abc"] == expected


def test_an_archive_of_the_controller_goes_to_one():
    request = Request("archive", archive="/x.tar", archive_on_server=False)
    assert kinds(decide(three(), request))["b"] == ("peers", ["a"])


@pytest.mark.parametrize(
    ("states", "made", "code"),
    [
        (three(), Request("none"), "image-absent"),
        (
            three(image_id="sha256:1"),
            Request("none", digest=f"sha256:{'1' * 64}"),
            "image-unexpected",
        ),
        ({"a": state(archive=MISSING)}, Request("archive", archive="/x.tar"), "image-archive-missing"),
        ({"a": state()}, Request("archive"), "image-archive-unnamed"),
        ({"a": state()}, Request("registry", digest="sha256:12"), "image-digest-invalid"),
        ({"a": state(image="ascend/x:1")}, Request("registry"), "image-registry-unnamed"),
        ({"a": state(image="r.example/x@sha256:12")}, Request("registry"), "image-named-by-digest"),
    ],
    ids=["nobody has it", "another", "no archive", "no path", "digest", "no registry", "by digest"],
)
def test_what_is_wrong_is_told(states, made, code):
    assert next(error.code for error in decide(states, made).errors) == code


def test_all_that_is_wrong_is_told_at_once():
    decision = decide(three(), Request("none"))
    assert len(decision.errors) == 3


def test_a_mirror_makes_a_name_without_registry_good():
    assert decide({"a": state(image="ascend/x:1")}, Request("registry", mirrors=("https://m",))).errors == []


def test_places():
    login = {"registry.example:5000": {"username": "u", "password": "p"}}
    found = endpoints(IMAGE, ["https://mirror.example/path/", "127.0.0.1:5000"], login, "CA", ["other"])
    assert [(one["base"], one["username"]) for one in found] == [
        ("https://mirror.example/path", ""),
        ("http://127.0.0.1:5000", ""),
        ("https://registry.example:5000", "u"),
    ]
    assert (
        endpoints(IMAGE, [], {}, "", ["registry.example:5000"])[0]["base"] == "http://registry.example:5000"
    )


def test_the_board_has_one_token_for_all_and_for_nobody_else(tmp_path):
    first, second = ImageState(tmp_path / "board"), ImageState(tmp_path / "board")
    assert first.token() == second.token()
    assert len(first.token()) == 64
    assert (tmp_path / "board" / "token.json").stat().st_mode & 0o077 == 0
    first.publish("a", port=1)
    first.publish("a", port=2)
    assert second.hosts() == {"a": {"host": "a", "port": 2}}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (IMAGE, "ascend/vllm-ascend"),
        ("ascend/vllm-ascend:v1", "ascend/vllm-ascend"),
        ("localhost/x@sha256:1", "x"),
    ],
    ids=str,
)
def test_repository(name, expected):
    assert repository(name) == expected


LISTED = [
    {"Id": "now", "Created": 4, "RepoTags": [IMAGE]},
    {"Id": "before", "Created": 3, "RepoTags": ["other.example/ascend/vllm-ascend:v0"]},
    {"Id": "used", "Created": 2, "RepoTags": ["ascend/vllm-ascend:used"]},
    {"Id": "oldest", "Created": 1, "RepoTags": ["ascend/vllm-ascend:a", "ascend/vllm-ascend:b"]},
    {"Id": "foreign", "Created": 0, "RepoTags": ["somebody/else:1"]},
    {"Id": "nameless", "Created": 0, "RepoTags": None},
]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (0, ["other.example/ascend/vllm-ascend:v0", "ascend/vllm-ascend:a", "ascend/vllm-ascend:b"]),
        (1, ["ascend/vllm-ascend:a", "ascend/vllm-ascend:b"]),
        (3, []),
    ],
    ids=str,
)
def test_old_names(keep, expected):
    assert old_names(LISTED, {"used"}, IMAGE, "now", keep) == expected


def test_file_systems():
    assert file_system("/proc/self") == "proc"
    assert is_shared("nfs4")
    assert not is_shared("ext4")


def test_zstd_without_the_program_says_what_to_do(monkeypatch):
    monkeypatch.setattr(images.shutil, "which", lambda _name: None)
    with pytest.raises(ImageError, match="Install zstd, or compress the archive with gzip"):
        list(plain([images.ZSTD_MAGIC + b"x"]))
    assert list(plain([b"plain", b"more"])) == [b"plain", b"more"]


def test_a_packed_archive_goes_through_the_program():
    assert b"".join(images.piped(["cat"], b"one ", iter([b"two ", b"three"]))) == b"one two three"
    with pytest.raises(ImageError, match="false cannot read the archive"):
        list(images.piped(["false"], b"", iter([])))


def test_room_is_looked_for_before(tmp_path):
    check_room(str(tmp_path), 1, 1)
    with pytest.raises(TransferError, match="MB free, the image needs") as raised:
        check_room(str(tmp_path), 10**18, 1)
    assert raised.value.finding.code == "image-disk-full"


def test_of_an_ended_transfer_only_the_part_stays(tmp_path):
    folder = Folder(str(tmp_path / "x"))
    assert folder.clear(keep_partial=True) is False
    folder.make()
    folder.write_status(ImageStatus("failed"))
    folder.touch([["a", "127.0.0.1", 1]])
    folder.partial_archive.write_bytes(b"some")
    assert folder.sources() == [("a", "127.0.0.1", 1)]
    folder.clear(keep_partial=True)
    assert [entry.name for entry in folder.path.iterdir()] == ["archive.part"]
    folder.clear(keep_partial=False)
    assert not folder.path.exists()


def test_of_a_folder_that_has_other_things_only_the_transfers_own_are_removed(tmp_path):
    """Somebody chose the data disk itself; it is not to be emptied."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "notes.json").write_text("{}")
    folder = Folder(str(tmp_path))
    folder.make()
    assert folder.left() == []
    folder.write_status(ImageStatus("failed"))
    folder.touch([])
    folder.partial_archive.write_bytes(b"some")
    (tmp_path / "incoming.3").write_bytes(b"piece")
    assert folder.clear(keep_partial=False) is True
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.safetensors", "notes.json"]
    assert folder.clear(keep_partial=False) is False


def test_on_a_full_disk_the_last_status_stays(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path / "x"))
    folder.make()
    folder.write_status(ImageStatus("getting"))

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(contents.json, "dump", full)
        folder.write_status(ImageStatus("failed"))
    assert folder.read_status() == ImageStatus("getting")
    folder.write_status(ImageStatus("failed"))
    assert folder.read_status() == ImageStatus("failed")
