#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: guard_secret
short_description: Choose the secret by which the guards of a deployment recognize each other
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(guard). Use C(no_log).
  - An action that runs on the controller. One task with C(run_once) handles all servers. It reads the results
    of M(ascend.pd_rollout.guard_secret_info) for each of them.
  - Returns the secret that the most servers have; if none has one, a new random one. It is kept on the
    servers alone.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
options:
  result:
    description: Name of the variable in which the servers registered that result.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Choose the secret
  ascend.pd_rollout.guard_secret:
    servers: "{{ ansible_play_hosts }}"
    result: guard_found
  run_once: true
  no_log: true
  register: guard_secret
"""

RETURN = r"""
secret:
  description: The secret of the deployment.
  returned: success
  type: str
"""
