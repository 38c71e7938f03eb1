# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils.deployment_server import (
    compare,
    digest,
    outdated,
)

KEY = {"pd_rollout.key": "0123456789ab"}


def labels(instance, role="decoder", hash_="a", **more):
    return {"pd_rollout.role": role, "pd_rollout.instance": instance, "pd_rollout.hash": hash_, **more}


def container(name, state="running", image="sha256:1", **more):
    script = f"/etc/pd_rollout/pd/{name.removeprefix('pd-')}.sh"
    return {
        "Names": [f"/{name}"],
        "State": state,
        "ImageID": image,
        "Labels": labels(name.removeprefix("pd-"), **more),
        "Mounts": [{"Source": "/root/.cache"}, {"Source": script}],
    }


def planned(name, secret_path=None):
    return {
        "container": name,
        "image": "vllm-ascend",
        "labels": labels(name.removeprefix("pd-")),
        "secret_path": secret_path,
    }


def look(containers, plan, images=None):
    return compare(containers, ["prefiller", "decoder"], plan, KEY, images or {})


def test_as_planned():
    assert look([container("pd-decode1")], [planned("pd-decode1")], {"vllm-ascend": "sha256:1"}) == {
        "strays": [],
        "running": ["pd-decode1"],
        "broken": [],
    }


@pytest.mark.parametrize(
    ("found", "running"),
    [
        pytest.param([], False, id="missing"),
        pytest.param([container("pd-decode1", "exited")], False, id="stopped"),
        pytest.param([container("pd-decode1", "created")], False, id="never-started"),
        pytest.param([container("pd-decode1", "restarting")], True, id="restarting"),
        pytest.param([container("pd-decode1", hash_="b")], True, id="another-script"),
        pytest.param([container("pd-decode1", image="sha256:2")], True, id="another-image"),
    ],
)
def test_broken(found, running):
    result = look(found, [planned("pd-decode1")], {"vllm-ascend": "sha256:1"})
    assert result["broken"] == ["decode1"]
    assert result["running"] == (["pd-decode1"] if running else [])


def test_a_changed_key_breaks_what_reads_it():
    plan = [planned("pd-decode1", "/etc/pd_rollout/pd/api_key")]
    assert look([container("pd-decode1")], plan)["broken"] == ["decode1"]
    assert look([container("pd-decode1", **KEY)], plan)["broken"] == []


def test_what_is_not_planned_is_a_stray_but_other_roles_are_not():
    result = look([container("pd-decode2"), container("pd-proxy", role="proxy")], [])
    assert result["strays"] == [
        {"name": "pd-decode2", "image": "sha256:1", "scripts": ["/etc/pd_rollout/pd/decode2.sh"]}
    ]


def files_of(folder):
    return {
        "script": "exec vllm serve\n",
        "script_path": str(folder / "pd" / "decode1.sh"),
        "secret_path": str(folder / "pd" / "api_key"),
    }


@pytest.fixture
def written(tmp_path):
    """A slice whose files are as planned."""
    plan = files_of(tmp_path)
    (tmp_path / "pd").mkdir(mode=0o700)
    for path, text, mode in (
        (plan["script_path"], plan["script"], 0o700),
        (plan["secret_path"], "key", 0o600),
    ):
        Path(path).write_text(text)
        Path(path).chmod(mode)
    return plan


def outdated_of(plan, key="key"):
    return [Path(path).name for path in outdated([plan], digest(key), os.getuid())]


def test_missing_files_are_outdated_with_their_directory(tmp_path):
    assert outdated_of(files_of(tmp_path)) == ["pd", "decode1.sh", "api_key"]


def test_files_as_planned_are_not_outdated(written):
    assert outdated_of(written) == []


def test_changed_content_is_outdated(written):
    assert outdated_of({**written, "script": "exec vllm serve --other\n"}) == ["decode1.sh"]
    assert outdated_of(written, "another") == ["api_key"]


def test_changed_modes_are_outdated(written, tmp_path):
    (tmp_path / "pd").chmod(0o755)
    (tmp_path / "pd" / "api_key").chmod(0o644)
    assert outdated_of(written) == ["pd", "api_key"]
