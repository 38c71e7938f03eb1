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
  - Assigns every node its own engine ID, the index of the node among all nodes.
  - The plan does the same for hosts without C(pd_engine_id).
options:
  _input:
    description: Number of nodes of each instance, prefillers first.
    type: list
    elements: int
    required: true
"""

EXAMPLES = r"""
- name: Show the IDs of a prefiller on two nodes and a decoder on one
  ansible.builtin.debug:
    msg: "{{ [2, 1] | ascend.pd_rollout.engine_ids }}"
  # => [["0", "1"], ["2"]]
"""

RETURN = r"""
_value:
  description: A list of engine IDs for each instance, one per node.
  type: list
  elements: list
"""

from typing import Any

from ..plugin_utils._filters import guarded, node_counts
from ..plugin_utils.rollout import topology


class FilterModule:
    """Engine ids."""

    def filters(self) -> dict[str, Any]:
        return {"engine_ids": engine_ids}


@guarded
def engine_ids(sizes: Any) -> list[list[str]]:
    return topology.engine_ids(node_counts(sizes))
