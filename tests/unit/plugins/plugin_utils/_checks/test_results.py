# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What servers registered, and what becomes of one that registered only a part."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action.check_report import ActionModule
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._checks import results

CHECKED = {"facts": {}, "findings": []}
PINGS = {"count": 32}


def variables(**servers: dict[str, Any]) -> dict[str, Any]:
    return {"hostvars": SimpleNamespace(raw_get=servers.get)}


@pytest.mark.parametrize(
    ("registered", "found"),
    [
        ({"own": PINGS}, PINGS),
        ({"reached": {"count": 4, "pings": PINGS}}, PINGS),
        ({"own": {"skipped": True}, "reached": {"pings": PINGS}}, PINGS),
        ({"own": {"count": 1}, "reached": {"pings": PINGS}}, {"count": 1}),
        ({"reached": {"count": 4}}, None),
        ({"reached": {"skipped": True}}, None),
        ({}, None),
    ],
    ids=["by its own role", "with the connections", "one skipped", "both", "no pings", "skipped", "nothing"],
)
def test_pings_are_found_where_they_were_made(
    registered: dict[str, Any], found: dict[str, Any] | None
) -> None:
    names = ["own", "reached.pings"]
    assert results.first_registered(variables(p1=registered), "p1", names) == found


@pytest.mark.parametrize(
    ("reached", "missing"),
    [
        ({"count": 3}, {}),
        ({"skipped": True}, {}),
        (None, {}),
        ({"failed": True, "msg": "the server has not answered"}, {"p1": "the server has not answered"}),
        ({"unreachable": True, "msg": "Connection timed out"}, {"p1": "Connection timed out"}),
    ],
    ids=["connected", "skipped", "no such task", "failed", "lost"],
)
def test_a_server_that_was_lost_while_it_connected_is_not_checked(
    reached: dict[str, Any] | None, missing: dict[str, str]
) -> None:
    action = ActionModule.__new__(ActionModule)
    server = {"checked": CHECKED, **({"reached": reached} if reached else {})}
    options = {"servers": ["p1"], "result": "checked", "reached": "reached"}
    found = action._results(variables(p1=server), options)
    assert found == ({} if missing else {"p1": CHECKED}, missing)
