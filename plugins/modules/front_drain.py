#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: front_drain
short_description: Wait until the last requests of replaced routers are answered
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Calls M(ascend.pd_rollout.front_requests_info) repeatedly, and shows a line every few seconds with the
    number of requests that still run.
  - After C(drain_timeout) seconds of the front it stops waiting, and says whose requests are left.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.calls
attributes:
  check_mode:
    support: full
    details: Does not wait in check mode.
  diff_mode:
    support: none
options:
  front:
    description: The front of the server in the plan, C(pd_plan.hosts[inventory_hostname].front).
    type: dict
    required: true
  colours:
    description: The routers that no longer get requests.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Wait until the blue router has answered its last request
  ascend.pd_rollout.front_drain:
    front: "{{ pd_plan.hosts[inventory_hostname].front }}"
    colours: [blue]
"""

RETURN = r"""
left:
  description: The requests that were still running when the time was up.
  returned: success
  type: list
  elements: dict
  sample: [{client: 198.51.100.7, age: 10m3s}]
seconds:
  description: Duration of the wait in seconds.
  returned: success
  type: float
findings:
  description: The finding about requests that are left, or why it failed.
  returned: when there is one
  type: list
  elements: dict
"""
