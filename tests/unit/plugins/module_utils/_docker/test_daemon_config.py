# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Merging options into daemon.json, and the module that does it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker import daemon_config
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker import dockerd as docker_engine
from ansible_collections.ascend.pd_rollout.plugins.modules import docker_daemon_config as module

MIRRORS = ["https://mirror.example"]


@pytest.mark.parametrize(
    ("present", "wanted", "merged"),
    [
        ({}, {"debug": True}, {"debug": True}),
        ({"dns": ["192.0.2.1"]}, {"debug": True}, {"dns": ["192.0.2.1"], "debug": True}),
        (
            {"log-opts": {"max-size": "10m"}},
            {"log-opts": {"max-file": "3"}},
            {"log-opts": {"max-size": "10m", "max-file": "3"}},
        ),
        (
            {"registry-mirrors": ["https://old.example"]},
            {"registry-mirrors": MIRRORS},
            {"registry-mirrors": MIRRORS},
        ),
        ({"debug": True, "dns": []}, {"debug": None}, {"dns": []}),
        ({}, {"debug": None}, {}),
        ({"log-opts": {"a": "1", "b": "2"}}, {"log-opts": {"a": None}}, {"log-opts": {"b": "2"}}),
        ({"log-opts": "text"}, {"log-opts": {"a": "1"}}, {"log-opts": {"a": "1"}}),
    ],
    ids=[
        "into nothing",
        "others stay",
        "objects merge",
        "lists are replaced",
        "null removes",
        "null of nothing",
        "null inside",
        "another type",
    ],
)
def test_merge_values(present: dict, wanted: dict, merged: dict) -> None:
    before = json.dumps(present)
    assert daemon_config.merge_values(present, wanted) == merged
    assert json.dumps(present) == before, "the argument is not changed"


def test_a_text_that_says_it_all_is_not_rewritten() -> None:
    text = '{"debug":true,   "dns": []}'
    assert daemon_config.merge(text, {"debug": True}) == daemon_config.Merge(text, ())


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_has_no_options(text: str) -> None:
    assert daemon_config.merge(text, {"debug": True}).text == '{\n  "debug": true\n}\n'


@pytest.mark.parametrize("indent", [2, 4, "\t"])
def test_the_files_indentation_and_order_stay(indent: int | str) -> None:
    text = json.dumps({"storage-driver": "overlay2", "dns": []}, indent=indent)
    merged = daemon_config.merge(text, {"debug": True})
    assert (
        merged.text
        == json.dumps({"storage-driver": "overlay2", "dns": [], "debug": True}, indent=indent) + "\n"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"debug": true,}', "line 1, column"),
        ('{"debug": true', "line 1, column"),
        ("[]", "a JSON list"),
        ('{"debug": true, "debug": false}', "'debug' occurs twice"),
        ("debug = true", "line 1, column 1"),
    ],
)
def test_a_broken_file_is_refused(text: str, reason: str) -> None:
    with pytest.raises(daemon_config.BrokenConfig, match=reason):
        daemon_config.merge(text, {"debug": True})


def test_what_needs_a_restart() -> None:
    merged = daemon_config.merge("{}", {"registry-mirrors": MIRRORS, "log-driver": "json-file"})
    assert merged.changed == ("log-driver", "registry-mirrors")
    assert merged.needs_restart == ("log-driver",)


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("--registry-mirror=https://mirror.example", "registry-mirrors"),
        ("-H", "hosts"),
        ("--host=fd://", "hosts"),
        ("-Hfd://", "hosts"),
        ("--log-opt", "log-opts"),
        ("--debug", "debug"),
        ("-D", "debug"),
    ],
)
def test_flags_of_the_running_engine(argument: str, key: str) -> None:
    arguments = ["/usr/bin/dockerd", argument, "--containerd=/run/containerd/containerd.sock"]
    assert daemon_config.given_as_flags((key, "dns"), arguments) == (key,)


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own dockerd has no say."""
    monkeypatch.setattr(docker_engine, "dockerd_path", lambda: None)
    monkeypatch.setattr(docker_engine, "daemon_pid", lambda: None)


def call(capsys: pytest.CaptureFixture[str], path: Path, config: dict, **arguments) -> dict:
    arguments = {
        "path": str(path),
        "config": config,
        "_ansible_remote_tmp": tempfile.gettempdir(),
        **arguments,
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("no_engine")
class TestModule:
    def test_it_makes_the_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "docker" / "daemon.json"
        result = call(capsys, path, {"registry-mirrors": MIRRORS})
        assert result["changed"]
        assert result["restart_keys"] == []
        assert json.loads(path.read_text()) == {"registry-mirrors": MIRRORS}
        assert path.stat().st_mode & 0o777 == 0o644
        assert not call(capsys, path, {"registry-mirrors": MIRRORS})["changed"]

    def test_it_keeps_mode_options_and_a_copy(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "daemon.json"
        path.write_text('{"dns": []}')
        path.chmod(0o600)
        result = call(capsys, path, {"log-driver": "local"})
        assert json.loads(path.read_text()) == {"dns": [], "log-driver": "local"}
        assert path.stat().st_mode & 0o777 == 0o600
        assert Path(result["backup_file"]).read_text() == '{"dns": []}'
        assert result["diff"]["before"] == '{"dns": []}'
        assert result["restart_keys"] == ["log-driver"]

    def test_check_mode_writes_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "docker" / "daemon.json"
        result = call(capsys, path, {"debug": True}, _ansible_check_mode=True)
        assert result["changed"]
        assert '"debug": true' in result["diff"]["after"]
        assert not path.parent.exists()

    def test_a_broken_file_stays(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "daemon.json"
        path.write_text('{"debug": true,}')
        result = call(capsys, path, {"debug": False})
        assert result["failed"]
        assert "is broken: line 1" in result["msg"]
        assert path.read_text() == '{"debug": true,}'

    def test_a_link_stays_a_link(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "real.json").write_text("{}")
        (tmp_path / "daemon.json").symlink_to("real.json")
        call(capsys, tmp_path / "daemon.json", {"debug": True})
        assert (tmp_path / "daemon.json").is_symlink()
        assert json.loads((tmp_path / "real.json").read_text()) == {"debug": True}

    def test_an_option_of_the_command_line_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(docker_engine, "daemon_arguments", lambda _pid: ["dockerd", "-H", "fd://"])
        result = call(capsys, tmp_path / "daemon.json", {"hosts": ["unix:///var/run/docker.sock"]})
        assert result["failed"]
        assert "hosts on its command line" in result["msg"]
        assert not (tmp_path / "daemon.json").exists()

    @pytest.mark.parametrize(
        ("script", "refused"),
        [
            ("echo 'configuration OK'", False),
            ("echo 'unknown flag: --validate' >&2; exit 125", False),
            ('echo "unable to configure with file $3: don\'t match any option: debgu" >&2; exit 1', True),
        ],
        ids=["valid", "too old to tell", "invalid"],
    )
    def test_dockerd_is_asked(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        script: str,
        refused: bool,
    ) -> None:
        dockerd = tmp_path / "dockerd"
        dockerd.write_text(f"#!/bin/sh\n{script}\n")
        dockerd.chmod(0o755)
        monkeypatch.setattr(docker_engine, "dockerd_path", lambda: str(dockerd))
        result = call(capsys, tmp_path / "daemon.json", {"debgu": True})
        assert result.get("failed", False) is refused
        assert (tmp_path / "daemon.json").exists() is not refused
        if refused:
            assert "daemon.json: don't match any option: debgu" in result["msg"]
