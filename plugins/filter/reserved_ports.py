# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter reserved_ports: a thin wrapper around the planner."""

from __future__ import annotations

DOCUMENTATION = r"""
name: reserved_ports
short_description: Ports to reserve on a server
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Joins the fixed ports of a host and those of HCCL in the form of C(net.ipv4.ip_local_reserved_ports).
  - Linux assigns ports from 32768 up to outgoing connections, which can then occupy a port that an engine
    needs.
positional: host
options:
  _input:
    description: The plan, from the fact C(pd_plan) or the file C(plan.json).
    type: dict
    required: true
  host:
    description: Name of the host in the inventory.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the ports to reserve on the first prefill server
  ansible.builtin.debug:
    msg: "{{ pd_plan | ascend.pd_rollout.reserved_ports('prefill1') }}"
  # => 7001,8004-8005,36100-36115,60000-60031
"""

RETURN = r"""
_value:
  description: Ports and ranges, joined with commas.
  type: str
"""

from typing import Any

from ..plugin_utils._filters import guarded, host_share
from ..plugin_utils.rollout import ports


class FilterModule:
    """Ports to reserve."""

    def filters(self) -> dict[str, Any]:
        return {"reserved_ports": reserved_ports}


@guarded
def reserved_ports(plan: Any, host: Any) -> str:
    return ports.reserved(host_share(plan, host)["ports"])
