# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter routers_left_out: which routers a run has not compared with the plan."""

from __future__ import annotations

DOCUMENTATION = r"""
name: routers_left_out
short_description: Hosts whose routers a run with tags or a limit has left out
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors
description:
  - Internal to C(playbooks/deploy.yml). Routers that the role C(proxy) has not compared with the plan in this
    run may still list engines that are no longer planned. These must not be removed yet.
options:
  _input:
    description: The plan, C(pd_plan).
    type: dict
    required: true
  variables:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show which hosts have routers that this run has left out
  ansible.builtin.debug:
    msg: "{{ pd_plan | ascend.pd_rollout.routers_left_out(hostvars) }}"
  # => ['server2'], with --limit server1
"""

RETURN = r"""
_value:
  description: Names of hosts that have a front in the plan, and whose routers were left out.
  type: list
  elements: str
"""

from collections.abc import Mapping
from typing import Any

from ..plugin_utils._filters import guarded


class FilterModule:
    """Routers that a run has left out."""

    def filters(self) -> dict[str, Any]:
        return {"routers_left_out": routers_left_out}


@guarded
def routers_left_out(plan: Any, variables: Any) -> list[str]:
    """Return the names of the hosts with a front whose routers this run has not inspected.

    plan: the plan.
    variables: the variables of all hosts.
    """
    fronts = [str(name) for name, share in plan["hosts"].items() if share.get("front")]
    return [name for name in fronts if not _inspected(variables[name])]


def _inspected(variables: Any) -> bool:
    # The role engine registers a result of this name as well, without routers.
    found = variables.get("container_found")
    return isinstance(found, Mapping) and bool(found.get("routers"))
