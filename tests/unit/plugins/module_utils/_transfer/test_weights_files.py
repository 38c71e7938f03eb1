"""Weights on their way: names, sizes, hashes, and what becomes of an interrupted transfer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action.weights_assignments import hashes_of
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import (
    hub,
    weights_install,
    weights_process,
    weights_rsync,
)
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import weights_files as files
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.catalogue import TransferError

DIGEST = hashlib.sha256(b"shard").hexdigest()


def write(folder: Path, **contents: bytes) -> None:
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "final"),
    [
        ("a.safetensors", "a.safetensors"),
        (".a.safetensors.Xy12Zz", "a.safetensors"),
        (".rsync-partial/a.safetensors", "a.safetensors"),
        ("sub/.rsync-partial/a", "sub/a"),
        ("sub/.a.Xy12Zz", "sub/a"),
        (".gitattributes", None),
        (".cache/huggingface/x", None),
    ],
)
def test_the_final_name_of_a_growing_file(name, final):
    assert files.logical(name) == final


def test_of_two_beginnings_of_a_file_the_longer_counts(tmp_path):
    write(tmp_path, whole=b"12345")
    for name, content in {".rsync-partial/b": b"123", ".b.Xy12Zz": b"1234", ".git": b"123456789"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert files.arrived(tmp_path) == 9


def test_what_a_killed_rsync_left_is_gone_on_with(tmp_path):
    (tmp_path / ".b.Xy12Zz").write_bytes(b"1234")
    assert files.keep_beginnings(tmp_path) == [".rsync-partial/b"]
    (tmp_path / ".b.Ab12Zz").write_bytes(b"12")
    assert files.keep_beginnings(tmp_path) == []
    assert files.files_below(tmp_path) == [".rsync-partial/b"]


def test_hidden_files_are_no_part_of_a_model(tmp_path):
    write(tmp_path, a=b"1", sub__b=b"22")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "c").touch()
    assert {name: state.size for name, state in files.manifest_of(tmp_path).items()} == {"a": 1, "sub/b": 2}


def test_a_config_that_was_adapted_counts_by_its_original(tmp_path):
    (tmp_path / "config.json").write_bytes(b"adapted")
    (tmp_path / "config.json.orig").write_bytes(b"shard")
    assert files.wrong_hashes(tmp_path, {"config.json": DIGEST}) == []
    assert files.wrong_hashes(tmp_path, {"config.json": "0" * 64, "gone": DIGEST}) == ["config.json", "gone"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"version": 1, "files": {"a": {"size": 5, "sha256": DIGEST}, "b": {"size": 1}}}),
        f"{DIGEST}  a\n",
        f"{DIGEST} *./a\n\n",
    ],
    ids=["bundle", "sha256sum", "binary"],
)
def test_manifests(text):
    assert hashes_of(text) == {"a": DIGEST}


def test_weights_with_a_wrong_hash_are_fetched_anew(tmp_path):
    write(tmp_path, a=b"damaged")
    with pytest.raises(TransferError) as caught:
        weights_install.verify(tmp_path, {"a": DIGEST})
    assert caught.value.finding.code == "weights-hash-mismatch"
    assert files.files_below(tmp_path) == [".rsync-partial/a"]


def test_a_copy_has_all_files_of_the_manifest_with_their_sizes(tmp_path):
    write(tmp_path, a=b"12345", more=b"1")
    weights_install.verify_sizes(tmp_path, {"a": files.FileState(5, 0)})
    with pytest.raises(TransferError, match=r"weights-changed: .*2 file\(s\) are not .*e\.g\. a\b"):
        weights_install.verify_sizes(tmp_path, {"a": files.FileState(4, 0), "gone": files.FileState(1, 0)})


def test_damaged_weights_lose_their_name_and_go_on_growing(tmp_path):
    model = tmp_path / "model"
    write(model, a=b"good", b=b"half")
    weights_install.adopt(model, ["b"])
    assert not model.exists()
    assert files.files_below(files.staging(model)) == [".rsync-partial/b", "a"]
    # Interrupted there, and someone put a part back: nothing of either is lost.
    write(model, c=b"new")
    weights_install.adopt(model, [])
    assert files.files_below(files.staging(model)) == [".rsync-partial/b", "a", "c"]


def test_an_empty_directory_gives_way(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    weights_install.adopt(model, [])
    write(files.staging(model), a=b"1")
    weights_install.put_in_place(files.staging(model), model)
    assert files.files_below(tmp_path) == ["model/a"]


def test_what_came_in_between_is_not_replaced(tmp_path):
    model = tmp_path / "model"
    write(model, a=b"theirs")
    write(files.staging(model), a=b"ours")
    with pytest.raises(TransferError, match="weights-path-taken"):
        weights_install.put_in_place(files.staging(model), model)
    assert (model / "a").read_bytes() == b"theirs"


def test_a_link_to_nowhere_is_a_finding(tmp_path):
    (tmp_path / "model").symlink_to(tmp_path / "not-mounted")
    with pytest.raises(TransferError, match="weights-path-missing"):
        weights_install.adopt(tmp_path / "model", [])


def test_weights_grow_where_no_link_leads(tmp_path):
    """Beside the model somebody else may write; a link there would lead root elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    files.staging(tmp_path / "model").symlink_to(elsewhere)
    write(tmp_path / "model", a=b"half")
    with pytest.raises(TransferError, match=r"weights-path-taken: .*incoming \(a link to .*elsewhere"):
        weights_install.adopt(tmp_path / "model", ["a"])
    assert files.files_below(tmp_path / "model") == ["a"]
    assert files.files_below(elsewhere) == []


def test_only_what_the_hubs_client_kept_for_itself_is_removed(tmp_path):
    for name in (".cache/huggingface/lock", ".msc", ".gitattributes", "a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    hub.clean(tmp_path)
    assert files.files_below(tmp_path) == [".gitattributes", "a"]


def test_the_daemon_serves_two_modules_to_named_servers_only(tmp_path):
    job = weights_rsync.Job("a", "/w", "10.0.0.1", 18730, "secret", clients=["10.0.0.2", "10.0.0.3"])
    config = weights_rsync.daemon_config(job, tmp_path, Path("/w")).splitlines()
    assert {
        "address = 10.0.0.1",
        "read only = yes",
        "hosts allow = 10.0.0.2 10.0.0.3",
        "exclude = .*",
    } <= set(config)
    assert "secret" not in "\n".join(config).replace("secrets", "")


def test_a_process_with_a_recycled_number_is_another(tmp_path):
    (tmp_path / "process.json").write_text('{"pid": 1, "started": 0}')
    assert weights_process.process_of(tmp_path) is None
