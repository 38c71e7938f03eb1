#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: host_reach
short_description: Test ports of other servers, or stop this server's temporary listener
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(host_check).
  - Connects to the listeners that M(ascend.pd_rollout.host_check) has started on the other servers, many at
    a time, and reports which do not answer, and by how much the clocks differ.
  - With O(name) it signs off from them afterwards. A listener ends when all its clients have signed off.
  - With O(stop) it stops the listener of this server.
  - With O(pings) the chips ping those of other servers meanwhile, as with M(ascend.pd_rollout.hccn_ping).
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
options:
  targets:
    description:
      - The ports to test, as returned by M(ascend.pd_rollout.host_targets). Each has RV(ignore:server), the
        name that must answer, RV(ignore:address) and RV(ignore:port).
    type: list
    elements: dict
    default: []
  timeout:
    description: Timeout of one connection, in seconds.
    type: float
    default: 3.0
  name:
    description: This server's name in the plan. Without it the server does not sign off.
    type: str
    default: ""
  token:
    description:
      - The secret of the run, by which listeners and their clients recognize each other.
      - The action plugin sets it. A listener with another secret does not answer.
    type: str
    default: ""
  listener:
    description:
      - This server's own listener, as M(ascend.pd_rollout.host_check) returned it. It should end by itself
        once all others have signed off.
    type: dict
    suboptions:
      pid:
        description: Its process id.
        type: int
        required: true
      started:
        description: Its start time, as the kernel reports it.
        type: int
        required: true
  patience:
    description: How long to wait for the listener to end, in seconds.
    type: float
    default: 3.0
  stop:
    description: The listener to stop, as M(ascend.pd_rollout.host_check) returned it.
    type: dict
    suboptions:
      pid:
        description: Its process id.
        type: int
        required: true
      started:
        description: Its start time, as the kernel reports it, so that no other process is stopped.
        type: int
        required: true
  pings:
    description: Options of M(ascend.pd_rollout.hccn_ping), as M(ascend.pd_rollout.hccn_mesh) returned them.
    type: dict
    suboptions:
      targets:
        description: By chip, the addresses to ping.
        type: dict
        required: true
      kind:
        description: The kind of ping that the fabric needs.
        type: str
        choices: [hccs_ping, ping]
        default: hccs_ping
      timeout:
        description: Timeout of one ping, in seconds.
        type: float
        default: 10.0
      hccn_tool:
        description: Path of C(hccn_tool) on the server.
        type: path
        default: /usr/local/Ascend/driver/tools/hccn_tool
"""

EXAMPLES = r"""
- name: Test the ports of the other servers
  ascend.pd_rollout.host_reach:
    targets: "{{ reach.targets[inventory_hostname] | default([]) }}"
    name: "{{ inventory_hostname }}"
    listener: "{{ result.listener }}"
  register: reached

- name: Stop the temporary listener if a client has not signed off
  ascend.pd_rollout.host_reach:
    stop: "{{ result.listener }}"
  when: reached.lingering
"""

RETURN = r"""
count:
  description: The number of connections that were tried.
  type: int
  returned: always
  sample: 42
unreachable_ports:
  description: Ports that did not answer, or where a different server answered.
  type: list
  elements: dict
  returned: always
  sample: [{server: prefill1, address: 10.0.0.11, port: 8004, problem: timeout, seen: no answer within 3 s}]
clocks:
  description: By server, its clock minus this server's, and the uncertainty, both in seconds.
  type: dict
  returned: always
  sample: {prefill1: [0.0002, 0.0004]}
lingering:
  description: Whether O(listener) is still running.
  type: bool
  returned: always
  sample: false
pings:
  description: The result of M(ascend.pd_rollout.hccn_ping).
  type: dict
  returned: with O(pings)
  sample: {count: 32, failed_pings: [], seconds: 2.1, msg: 32 of 32 pings succeeded in 2.1 s}
stopped:
  description: Whether a listener was running and has been stopped.
  type: bool
  returned: always
  sample: false
"""

from ..module_utils._host import reach
from ..module_utils._module import run


def main() -> None:
    run(reach.ARGUMENTS, reach.reach)


if __name__ == "__main__":
    main()
