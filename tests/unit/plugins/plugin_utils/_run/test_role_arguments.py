# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Variables of roles that an inventory sets: what a role would refuse is a finding of the plan."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import role_arguments


def plain(value: Any) -> Any:
    """As the plan does it: what refers to nothing raises."""
    if value is ...:
        raise ValueError("not defined")
    return value


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        pytest.param({"engine_ready_timeout": "soon"}, {"engine_ready_timeout": "7200"}, "int", id="number"),
        pytest.param({"docker_image_spread": "so"}, {"docker_image_spread": "no"}, "bool", id="yes-or-no"),
        pytest.param({"hccn_check_mesh": "star"}, {"hccn_check_mesh": "full"}, "ring", id="one-of-some"),
        pytest.param({"docker_registry_login": "me"}, {"docker_registry_login": {}}, "dict", id="mapping"),
    ],
)
def test_what_a_role_would_refuse_is_found(wrong: Any, right: Any, told: str) -> None:
    (found,) = role_arguments.findings({"decode1": wrong}, plain)
    assert (found.code, found.host, found.variable) == ("PD102", "decode1", next(iter(wrong)))
    assert told in found.message
    assert role_arguments.findings({"decode1": right}, plain) == []


def test_many_hosts_are_one_finding() -> None:
    hosts = {f"decode{number}": {"engine_ready_timeout": "soon"} for number in range(5)}
    (found,) = role_arguments.findings(hosts, plain)
    assert found.host is None
    assert "decode0" in found.message


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({"docker_image": ...}, id="refers-to-what-only-the-role-has"),
        pytest.param({"container_slices": 3}, id="of-an-internal-role"),
        pytest.param({"docker_hub": {"user": 1}, "proxy": 3, "pd_plan": None}, id="of-no-role"),
    ],
)
def test_what_is_not_for_the_plan_is_left_alone(variables: Any) -> None:
    assert role_arguments.findings({"decode1": variables}, plain) == []
