#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_record
short_description: Record which containers a rollout has started
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(_container).
  - Records the start of each container whose instance has several nodes beside its launch script, with an ID
    of this rollout. From the record M(ascend.pd_rollout.deployment_info) can tell that a node was started
    later, and so has left its group.
  - Reports which containers have been started since they were inspected.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.changes
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.docker
options:
  planned:
    description: The slices of the plan for this server.
    type: list
    elements: dict
    required: true
  before:
    description: The RV(ignore:nodes) that M(ascend.pd_rollout.deployment_info) returned before the start.
    type: list
    elements: dict
    default: []
  seconds:
    description: How long the start of containers took until they were ready, in seconds by their names. With
      it only this is recorded.
    type: dict
    default: {}
  generation:
    description: ID of the rollout, the same on all servers. Set by the action.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Record which containers were started
  ascend.pd_rollout.deployment_record:
    planned: "{{ pd_plan.hosts[inventory_hostname].engines }}"
    before: "{{ deployed.nodes }}"
"""

RETURN = r"""
started:
  description: Containers that have been started since they were inspected.
  returned: success
  type: list
  elements: str
  sample: [pd-prefiller]
noted:
  description: Containers whose start was recorded.
  returned: success
  type: list
  elements: str
  sample: [pd-prefiller]
"""

from ..module_utils._module import run
from ..module_utils._serving import nodes


def main() -> None:
    run(nodes.RECORD_ARGUMENTS, nodes.record)


if __name__ == "__main__":
    main()
