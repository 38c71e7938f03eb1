#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: front_requests_info
short_description: List the requests that run through a router behind the front
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Asks all of HAProxy's processes, also those of an earlier configuration that still finish answers, how
    many requests run through one of the two routers.
  - Changes nothing.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
options:
  front:
    description: The front of the server in the plan, C(pd_plan.hosts[inventory_hostname].front).
    type: dict
    required: true
  colour:
    description: The router.
    type: str
    choices: [blue, green]
    required: true
  hold:
    description: Seconds for which the answer is held back as long as there are requests.
    type: float
    default: 0.0
"""

EXAMPLES = r"""
- name: List the requests of the blue router
  ascend.pd_rollout.front_requests_info:
    front: "{{ pd_plan.hosts[inventory_hostname].front }}"
    colour: blue
"""

RETURN = r"""
running:
  description: The number of requests.
  returned: success
  type: int
  sample: 1
left:
  description: Each of them, with the client's address and the time since it was accepted.
  returned: success
  type: list
  elements: dict
  sample: [{client: 198.51.100.7, age: 41s}]
findings:
  description: Why it failed, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""

from ..module_utils._front import entry
from ..module_utils._module import run


def main() -> None:
    run(entry.REQUESTS_ARGUMENTS, entry.requests)


if __name__ == "__main__":
    main()
