# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Full hashes of a model's files, on request."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files import contents
from ansible_collections.ascend.pd_rollout.plugins.module_utils._weights import hashes, inspection, patch

HEADER = b'{"w":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}'
SHARD = len(HEADER).to_bytes(8, "little") + HEADER
NAME = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / NAME).write_bytes(SHARD + b"\0")
    (tmp_path / "config.json").write_text('{"torch_dtype": "float16"}\n')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    return tmp_path


def look(model: Path) -> inspection.Report:
    return inspection.with_hashes(inspection.inspect(str(model), "bfloat16"))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_flipped_bit_shows_in_the_hashes_alone(model: Path) -> None:
    before, cheap = look(model), inspection.inspect(str(model), "bfloat16")
    (model / NAME).write_bytes(SHARD + b"\1")
    after = look(model)
    assert inspection.inspect(str(model), "bfloat16").fingerprint == cheap.fingerprint
    assert after.fingerprint != before.fingerprint
    assert [name for name in after.hashes if after.hashes[name] != before.hashes[name]] == [NAME]
    assert after.findings == []


def test_config_counts_as_it_will_be(model: Path) -> None:
    before = look(model)
    patch.apply_patch(model, before.patch)
    after = look(model)
    assert after.patch is None
    assert after.hashes == before.hashes
    assert after.fingerprint == before.fingerprint


@pytest.mark.parametrize("name", ["SHA256SUMS", "sha256sum.txt", "model.sha256"])
def test_a_list_beside_the_weights_is_compared(model: Path, name: str) -> None:
    original = (model / "config.json").read_bytes()
    lines = [f"{digest(SHARD + bytes(1))} *{NAME}", f"{digest(original)}  ./config.json", "no hash at all"]
    (model / name).write_text("\n".join([*lines, f"{digest(b'')}  not-there.safetensors"]))
    report = look(model)
    assert report.findings == []
    # Patched by us, it is still what the list means.
    patch.apply_patch(model, report.patch)
    assert look(model).findings == []
    (model / NAME).write_bytes(SHARD + b"\1")
    (found,) = look(model).findings
    assert found.code == "weights-hash-mismatch"
    assert found.severity == "error"
    assert found.files == (NAME,)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (NAME, True),
        ("tokenizer.model", True),
        ("inner/part.json", True),
        (".cache/huggingface/x.json", False),
        ("README.md", False),
        ("sha256sum.txt", False),
        ("config.json.orig", False),
    ],
)
def test_what_counts(name: str, expected: bool) -> None:
    assert hashes.counts(name) is expected


def test_what_cannot_be_read_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to("/nowhere/at/all")
    assert hashes.hash_all(tmp_path, [NAME]) == {NAME: "unreadable"}
    assert hashes.hash_all(tmp_path, []) == {}
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff\xfe")
    assert hashes.manifest(tmp_path, contents.files_below(tmp_path)) == {}
