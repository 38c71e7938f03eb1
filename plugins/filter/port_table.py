# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter port_table: a thin wrapper around the planner."""

from __future__ import annotations

DOCUMENTATION = r"""
name: port_table
short_description: The plan's ports as a table
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Lists every listening port, as aligned text.
positional: host
options:
  _input:
    description: The plan, from the fact C(pd_plan) or the file C(plan.json).
    type: dict
    required: true
  host:
    description: Limits the table to this host; by default it has all hosts.
    type: str
"""

EXAMPLES = r"""
- name: Show the ports of all hosts
  ansible.builtin.debug:
    msg: "{{ pd_plan | ascend.pd_rollout.port_table }}"
  # => host      port         purpose       instance
  #    prefill1  8004         API           prefiller
  #    prefill1  7001         master        prefiller
  #    prefill1  36100-36115  KV handshake  prefiller
"""

RETURN = r"""
_value:
  description: The table, one line per row.
  type: str
"""

from typing import Any

from ..plugin_utils._filters import guarded, host_share, whole_plan
from ..plugin_utils.rollout import render


class FilterModule:
    """A table of ports."""

    def filters(self) -> dict[str, Any]:
        return {"port_table": port_table}


@guarded
def port_table(plan: Any, host: Any = None) -> str:
    rows = whole_plan(plan)["ports"] if host is None else host_share(plan, host)["ports"]
    return "\n".join(render.port_lines([row for row in rows if row["bound"]]))
