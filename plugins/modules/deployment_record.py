#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_record
short_description: Note which containers a rollout has started
version_added: 0.2.0
author:
  - The ascend.pd_rollout authors
description:
  - Of each container whose instance has several nodes, notes its start beside its launch script, with an
    identity of this rollout. By this M(ascend.pd_rollout.deployment_info) sees that a node has been started
    since, and so has left its group.
  - Says which containers have been started since they were looked at.
requirements:
  - Python 3.7 or later
attributes:
  action:
    description: >-
      Has an action of the same name, which knows the rollout, and which pipes the work into the server's
      Python where it can. The result is the same.
    support: full
  check_mode:
    description: Can run in check mode and notes nothing.
    support: full
  diff_mode:
    description: Shows differences when it changes something.
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
  docker_socket:
    description: Socket of the Docker Engine.
    type: path
    default: /var/run/docker.sock
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

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._serving import nodes


def main() -> None:
    module = AnsibleModule(argument_spec=nodes.RECORD_ARGUMENTS, supports_check_mode=True)
    result = nodes.record({**module.params, "_check_mode": module.check_mode})
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
