# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a guard is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import config as module
from guard_servers import config, told

ROUTERS = [{"container": "pd-router-blue"}, {"container": "pd-router-green"}]


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    path.write_text(json.dumps(told(tmp_path)), encoding="utf-8")
    found = module.read(path)
    assert found == config(tmp_path)
    assert (found.host, found.port, found.servers["server2"]) == ("server1", 7900, ("192.0.2.2", 7900))
    assert [(one.container, one.rank) for one in found.engines] == [("pd-prefill", 0), ("pd-decode", 0)]
    assert found.instances["prefill"].nodes == ("server1", "server2")
    assert (found.settings.attempts, found.settings.pause) == (2, 10.0)


def test_its_places_follow_from_the_deployment(tmp_path: Path) -> None:
    found = config(tmp_path)
    assert found.folder == tmp_path / "guard"
    assert found.run == Path("/run/pd-guard")


@pytest.mark.parametrize(
    ("front", "routers", "keeps"),
    [
        ({"run": "/run/pd-front"}, ROUTERS, True),
        ({"run": "/run/x"}, ROUTERS[:1], False),
        (None, ROUTERS, False),
    ],
)
def test_a_list_is_kept_only_where_a_second_router_can_take_over(
    tmp_path: Path, front: object, routers: object, keeps: bool
) -> None:
    assert config(tmp_path, front=front, routers=routers).keeps_list is keeps


def test_the_key_of_the_apis_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    found = config(tmp_path, secret_path=str(secret))
    with pytest.raises(FileNotFoundError):
        found.api_key()
    secret.write_text("sk-1\n", encoding="utf-8")
    assert found.api_key() == "sk-1"
    assert config(tmp_path).api_key() is None


@pytest.mark.parametrize("gone", ["engines", "settings", "servers", "port"])
def test_a_file_that_lacks_something_is_an_error(tmp_path: Path, gone: str) -> None:
    content = told(tmp_path)
    del content[gone]
    with pytest.raises(KeyError):
        module.config_of(content)
