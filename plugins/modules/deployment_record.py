#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_record
short_description: Note which containers a rollout has started
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(container).
  - Of each container whose instance has several nodes, notes its start beside its launch script, with an
    identity of this rollout. By this M(ascend.pd_rollout.deployment_info) sees that a node has been started
    since, and so has left its group.
  - Says which containers have been started since they were looked at.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.docker
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  planned:
    description: The slices of the plan for this server.
    type: list
    elements: dict
    required: true
  before:
    description: What M(ascend.pd_rollout.deployment_info) returned as RV(ignore:nodes) before the start.
    type: list
    elements: dict
    default: []
  generation:
    description: Identity of the rollout, the same on all servers. The action knows it.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Note what has been started
  ascend.pd_rollout.deployment_record:
    planned: "{{ pd_plan.hosts[inventory_hostname].engines }}"
    before: "{{ deployed.nodes }}"
"""

RETURN = r"""
started:
  description: Containers that have been started since they were looked at.
  returned: success
  type: list
  elements: str
  sample: [pd-prefiller]
noted:
  description: Containers of which a start was noted.
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
