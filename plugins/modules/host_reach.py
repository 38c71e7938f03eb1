#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: host_reach
short_description: Try ports of other servers, or end this server's temporary listener
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(host_check).
  - Connects to the listeners that M(ascend.pd_rollout.host_check) has left on the other servers, many at a
    time, and tells which do not answer, and how far the clocks are apart.
  - With O(name) it takes leave of them afterwards. A listener of which all have taken leave ends by itself.
  - With O(stop) it ends the listener of this server.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
options:
  targets:
    description:
      - What to try, as M(ascend.pd_rollout.host_targets) gives it. Each has RV(ignore:server), the name that
        must answer, RV(ignore:address) and RV(ignore:port).
    type: list
    elements: dict
    default: []
  timeout:
    description: Longest time for one connection, in seconds.
    type: float
    default: 3.0
  name:
    description: This server's name in the plan. Without it no leave is taken.
    type: str
    default: ""
  token:
    description:
      - The secret of the run, by which listeners and those who try them know each other.
      - The action sets it; a listener that has another one does not answer.
    type: str
    default: ""
  listener:
    description:
      - This server's own listener, as M(ascend.pd_rollout.host_check) returned it, which should end by itself
        once all others have taken leave.
    type: dict
    suboptions:
      pid:
        description: Its process id.
        type: int
        required: true
      started:
        description: The kernel's start time of it.
        type: int
        required: true
  patience:
    description: How long to wait for that end, in seconds.
    type: float
    default: 3.0
  stop:
    description: The listener to end, as M(ascend.pd_rollout.host_check) returned it.
    type: dict
    suboptions:
      pid:
        description: Its process id.
        type: int
        required: true
      started:
        description: The kernel's start time of it, so that no other process is ended.
        type: int
        required: true
"""

EXAMPLES = r"""
- name: Try the ports of the other servers
  ascend.pd_rollout.host_reach:
    targets: "{{ reach.targets[inventory_hostname] | default([]) }}"
    name: "{{ inventory_hostname }}"
    listener: "{{ result.listener }}"
  register: reached

- name: Take the temporary listener away, if somebody has not come to it
  ascend.pd_rollout.host_reach:
    stop: "{{ result.listener }}"
  when: reached.lingering
"""

RETURN = r"""
count:
  description: How many connections were tried.
  type: int
  returned: always
  sample: 42
unreachable_ports:
  description: Those that did not answer, or by somebody else.
  type: list
  elements: dict
  returned: always
  sample: [{server: prefill1, address: 10.0.0.11, port: 8004, problem: timeout, seen: no answer within 3 s}]
clocks:
  description: By server, its time less this server's, and how exact that is, both in seconds.
  type: dict
  returned: always
  sample: {prefill1: [0.0002, 0.0004]}
lingering:
  description: Whether O(listener) is still there.
  type: bool
  returned: always
  sample: false
stopped:
  description: Whether a listener was there and ended.
  type: bool
  returned: always
  sample: false
"""

from ..module_utils._host import entry
from ..module_utils._module import run


def main() -> None:
    run(entry.REACH_ARGUMENTS, entry.reach)


if __name__ == "__main__":
    main()
