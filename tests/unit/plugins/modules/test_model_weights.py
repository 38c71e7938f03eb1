# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""The module model_weights as Ansible calls it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import weights_process
from ansible_collections.ascend.pd_rollout.plugins.module_utils._weights import patch
from ansible_collections.ascend.pd_rollout.plugins.modules import model_weights, weights_directory

HEADER = b'{"w":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(len(HEADER).to_bytes(8, "little") + HEADER + b"\0")
    (tmp_path / "config.json").write_text('{"torch_dtype": "float16"}\n')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], path: Path, **arguments) -> dict:
    with patch_module_args({"path": str(path), **arguments}), pytest.raises(SystemExit):
        model_weights.main()
    return json.loads(capsys.readouterr().out)


def test_it_patches_once(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = call(capsys, model)
    assert first["changed"]
    assert first["diff"]["before"] == '{"torch_dtype": "float16"}\n'
    assert first["diff"]["after"] == '{"torch_dtype": "bfloat16"}\n' == (model / "config.json").read_text()
    assert first["original"] == str(model / "config.json.orig")
    second = call(capsys, model)
    assert not second["changed"]
    assert "diff" not in second
    assert second["fingerprint"] == first["fingerprint"]


def test_what_a_killed_run_has_left_is_told_also_of_weights_that_are_whole(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, token = model / "deepseek", tmp_path_factory.mktemp("scripts") / "token"
    path.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        (model / name).rename(path / name)

    def left() -> tuple[bool, list[str]]:
        told = call(capsys, path, leftovers=[str(token)])
        assert told["findings"] == []
        return told["leftover"], told["leftover_files"]

    assert left() == (False, [])
    token.write_text("")
    assert left() == (True, [str(token)])
    token.unlink()
    (model / ".pd_rollout-probe-0123456789ab-decode1").touch()
    assert left() == (True, [])


@pytest.mark.parametrize("written", ["{}", "{}/", "{}//"])
def test_what_a_transfer_has_left_is_looked_for_by_the_path_as_it_is_written(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(weights_process, "left", lambda path: not asked.append(path))
    path = written.format(model)
    with patch_module_args({"path": path}), pytest.raises(SystemExit):
        model_weights.main()
    assert json.loads(capsys.readouterr().out)["leftover"] is True
    assert asked == [path]


@pytest.mark.parametrize("path", ["/", "/srv/../etc", "/srv/x\ny"])
def test_a_path_that_leads_elsewhere_is_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = call(capsys, Path(path))
    assert told["failed"]
    assert "model_weights_path (pd_model_path) is " in told["msg"]


def test_check_mode_says_what_it_would_do(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, model, _ansible_check_mode=True)
    assert result["changed"]
    assert result["dtype"] == "bfloat16"
    assert "bfloat16" in result["diff"]["after"]
    assert "float16" in (model / "config.json").read_text()
    assert not (model / "config.json.orig").exists()


def test_nothing_is_changed_while_something_is_wrong(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "model.safetensors").unlink()
    result = call(capsys, model)
    assert result["failed"]
    assert [finding["code"] for finding in result["findings"]] == ["weights-absent"]
    assert result["findings"][0]["cure"] in re.sub(r"\n +", " ", result["msg"])
    assert (model / "config.json").read_text() == '{"torch_dtype": "float16"}\n'


def test_findings_may_be_returned_only(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, model, patch=False, fail_on_findings=False)
    assert "failed" not in result
    assert not result["changed"]
    assert [finding["code"] for finding in result["findings"]] == ["weights-dtype-unexpected"]


def test_a_directory_that_cannot_be_written(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments, **_options) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(patch.tempfile, "mkstemp", refuse)
    result = call(capsys, model)
    assert result["failed"]
    assert not result["changed"]
    assert "diff" not in result
    assert [finding["code"] for finding in result["findings"]] == ["weights-dtype-not-patched"]
    assert "Read-only file system" in result["msg"]


def test_a_warning_does_not_fail(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "tokenizer_config.json").unlink()
    result = call(capsys, model)
    assert result["changed"]
    assert result["findings"][0]["severity"] == "warning"


def test_hashes_on_request(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cheap = call(capsys, model, _ansible_check_mode=True)
    assert "hashes" not in cheap
    full = call(capsys, model, hashes="full", _ansible_check_mode=True)
    assert set(full["hashes"]) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert full["fingerprint"] != cheap["fingerprint"]
    absent = call(capsys, model / "nowhere", hashes="full", fail_on_findings=False)
    assert [one["code"] for one in absent["findings"]] == ["weights-path-missing"]
    assert absent["hashes"] == {}


@pytest.mark.parametrize("path", ["/", "/etc", "/weights/../etc"])
def test_a_directory_of_the_system_is_no_place_of_weights(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, arguments in ((model_weights, {}), (weights_directory, {"state": "staged"})):
        with patch_module_args({"path": path, **arguments}), pytest.raises(SystemExit):
            module.main()
        result = json.loads(capsys.readouterr().out)
        assert result["failed"]
        assert result["findings"][0]["code"] == "folder-path-invalid"
        assert result["findings"][0]["variable"] == "model_weights_path (pd_model_path)"
        assert result["findings"][0]["seen"] == repr(path)
