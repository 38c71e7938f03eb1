"""What a hub promised, and what is done with a download that is not it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import hub
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.catalogue import TransferError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.weights_files import (
    files_below,
)

GIT_OF_A = hashlib.sha1(b"blob 2\0{}").hexdigest()


def shard(size: int) -> bytes:
    header = json.dumps({"t": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """What Hugging Face's client leaves of a whole model, with its notes."""
    files = {
        "model.safetensors": shard(9),
        "config.json": b'{"torch_dtype": "float16"}',
        "tokenizer.json": b"{}",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        note(tmp_path, name, hashlib.sha256(content).hexdigest() if name.endswith("safetensors") else git)
    (tmp_path / ".msc").touch()
    return tmp_path


def note(folder: Path, name: str, etag: str) -> None:
    place = folder / hub.NOTES / f"{name}.metadata"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{'a' * 40}\n{etag}\n1795542287.06\n")
    place.with_suffix(".lock").touch()


def test_a_download_that_is_what_the_hub_said_loses_its_notes(download):
    assert hub.promised(download)["tokenizer.json"] == GIT_OF_A
    hub.accept(download, {})
    assert files_below(download) == ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"], ids=["sha256", "git"])
def test_what_the_hub_did_not_say_is_fetched_anew_and_nothing_else(download, name):
    content = (download / name).read_bytes()
    (download / name).write_bytes(content[:-1] + b" ")
    with pytest.raises(TransferError) as caught:
        hub.accept(download, {})
    assert caught.value.finding.code == "weights-hash-mismatch"
    assert name in caught.value.finding.seen
    assert not (download / name).exists()
    assert (download / ".msc").exists()


def test_a_manifest_that_disagrees_costs_one_file_only(download):
    with pytest.raises(TransferError, match="weights-hash-mismatch"):
        hub.accept(download, {"model.safetensors": "0" * 64})
    assert (download / ".msc").exists()
    assert (download / "config.json").exists()


def test_what_another_revision_left_unfinished_goes_with_the_notes(download):
    (download / "._____temp").mkdir()
    (download / "._____temp" / "old.safetensors").touch()
    hub.accept(download, {})
    assert not (download / "._____temp").exists()


def test_a_model_without_a_shard_keeps_its_notes(download):
    index = {"weight_map": {"t": "model.safetensors", "u": "model-2.safetensors"}}
    (download / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TransferError, match="weights-shard-missing"):
        hub.accept(download, {})
    assert (download / ".msc").exists()


@pytest.mark.parametrize("etag", ["", '"W/weak"', "not a hash"])
def test_an_answer_without_a_hash_promises_nothing(download, etag):
    note(download, "tokenizer.json", etag)
    assert "tokenizer.json" not in hub.promised(download)
    hub.accept(download, {})
