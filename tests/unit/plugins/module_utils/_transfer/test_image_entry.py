# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""docker_image_info: one call that looks at the Docker Engine and the image."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker import entry as docker_entry
from ansible_collections.ascend.pd_rollout.plugins.module_utils._docker.client import DockerError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer import image_entry

INFO = {"ServerVersion": "26.1", "ContainersRunning": 1, "LiveRestoreEnabled": False, "DockerRootDir": "/d"}


class Images:
    """A server with one image."""

    def inspect(self, name: str) -> Any:
        return {"Id": "sha256:1", "Size": 3, "RepoDigests": []} if name == "there:1" else None

    def recorded(self, _image_id: str) -> list[str]:
        return []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    monkeypatch.setattr(image_entry, "Images", Images)

    def state(image: str, *, running: bool, docker: bool = True) -> dict[str, Any]:
        def info(*_: Any) -> dict[str, Any]:
            if not running:
                raise DockerError("nobody answers")
            return INFO

        monkeypatch.setattr(docker_entry.dockerd, "wait_for_info", info)
        given = {name: option.get("default") for name, option in image_entry.ARGUMENTS.items()}
        own = {"image": image, "docker": docker, "directory": str(tmp_path), "_check_mode": False}
        return image_entry.state({**given, **own})

    return state


def test_both_are_told_at_once(server: Any) -> None:
    found = server("there:1", running=True)
    assert (found["docker"]["running"], found["right"], found["id"]) == (True, True, "sha256:1")


@pytest.mark.parametrize(("image", "running"), [("there:1", False), ("", True)])
def test_without_docker_or_image_only_docker_is_told(server: Any, image: str, running: bool) -> None:
    found = server(image, running=running)
    assert set(found) == {"changed", "image", "docker"}
    assert found["docker"]["running"] is running


def test_docker_is_told_only_where_it_is_asked(server: Any) -> None:
    assert "docker" not in server("there:1", running=True, docker=False)
