# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a server's journal and -vvv must not have: digests of API keys, which tell short ones."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.common.parameters import _list_no_log_values
from ansible_collections.ascend.pd_rollout.plugins.filter.front_digests import front_digests
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front import entry as front_entry
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import entry as serving_entry

FRONT: dict[str, Any] = {
    "unit": "pd-front",
    "config": "global\n",
    "service": "[Unit]\n",
    "lua": None,
    "tls": True,
    "keys": True,
    "engine_key": True,
    "host": "198.51.100.1",
    "port": 8443,
    "packages": ["haproxy"],
}
KEYS = {"alice": "ab" * 32, "blue": "cd" * 32}
KNOWN = front_digests(FRONT, "PEM", KEYS, "secret")


@pytest.mark.parametrize(
    ("arguments", "options", "secrets"),
    [
        (front_entry.ARGUMENTS, {"front": FRONT, "keys": KEYS, "colour": "blue"}, {*KEYS.values()}),
        (
            serving_entry.ARGUMENTS,
            {"front": KNOWN["front"], "front_digests": KNOWN["digests"]},
            {digest for digest in KNOWN["digests"].values() if digest},
        ),
    ],
    ids=["front", "deployment_info"],
)
def test_digests_are_kept_from_logs_and_nothing_else(
    arguments: dict[str, Any], options: dict[str, Any], secrets: set[str]
) -> None:
    assert _list_no_log_values(arguments, options) == secrets
    assert not any(secret in str(options["front"]) for secret in secrets)
