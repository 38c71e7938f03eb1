# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter engine_ids: a thin wrapper around the planner."""

from __future__ import annotations

DOCUMENTATION = r"""
name: engine_ids
short_description: Engine IDs of a cluster's instances
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Gives every node of an instance its engine ID, the name of the instance and the rank of the node, so that
    no ID changes when other instances are added or removed.
  - The plan does the same for hosts without C(pd_engine_id). With C(pd_dp_mode=external) all nodes of an
    instance have the ID of its first node.
options:
  _input:
    description:
      - Number of nodes of each instance, by its name.
      - Or a list of instances, each with C(name) and C(nodes), which is a number or a list of the names of
        its servers.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Show the IDs of a prefiller on two nodes and a decoder on one
  ansible.builtin.debug:
    msg: "{{ {'prefiller': 2, 'decoder': 1} | ascend.pd_rollout.engine_ids }}"
  # => {"prefiller": ["prefiller-0", "prefiller-1"], "decoder": ["decoder-0"]}
"""

RETURN = r"""
_value:
  description: The engine IDs of each instance, one per node, by the name of the instance.
  type: dict
"""

from typing import Any

from ..plugin_utils._filters import given_instances, guarded
from ..plugin_utils.rollout import topology


class FilterModule:
    """Engine ids."""

    def filters(self) -> dict[str, Any]:
        return {"engine_ids": engine_ids}


@guarded
def engine_ids(instances: Any) -> dict[str, list[str]]:
    return {one.name: topology.engine_ids(one.name, len(one.servers)) for one in given_instances(instances)}
