#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: host_check
short_description: Check one server against the plan
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Looks, in one call, whether the server has what the plan wants of it. That is the devices, free NPUs and
    ports, the NIC with its address and routes, the Docker Engine, space, memory, the right architecture and
    hardware for the image, driver and firmware, and kernel parameters that matter.
  - Nothing is changed on the server. With O(listen) a temporary listener is left on the free ports of the
    plan, so that the other servers can try them with M(ascend.pd_rollout.host_reach). It ends when all of
    them have taken leave, when that module ends it, and in any case after O(listen_seconds). Where no other
    server will use a port there is none. It says nothing to those who do not know the run's secret, and does
    nothing for them.
  - What containers of the deployment hold already (ports, NPUs) is not foreign.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.driver
  - ascend.pd_rollout.options.docker
  - ascend.pd_rollout.options.fail
options:
  wants:
    description: What the plan wants of the server, as P(ascend.pd_rollout.host_requirements#filter) gives it.
    type: dict
    required: true
  listen:
    description: Whether to leave the listener.
    type: bool
    default: false
  listen_seconds:
    description: Longest life of the listener, in seconds.
    type: float
    default: 120.0
  token:
    description:
      - The secret of the run, by which listeners and those who try them know each other.
      - The action sets it; without one there is no listener.
    type: str
    default: ""
  timeout:
    description: Longest time for one call of C(npu-smi), in seconds.
    type: float
    default: 10.0
  image_gigabytes:
    description: Space that the image takes, in GB. Not checked with V(0), or where the image is there.
    type: float
    default: 0.0
  image_archive:
    description:
      - The image's archive on the server.
      - Where it is there, its size counts instead of O(image_gigabytes).
    type: str
    default: ""
  weights_path:
    description: The directory of the weights.
    type: str
    default: ""
  weights_gigabytes:
    description:
      - Space that the weights take, in GB, where their directory is not there yet.
      - Not checked with V(0).
    type: float
    default: 0.0
  memory_gigabytes:
    description: Memory that the server must have, in GB. V(0) is not checked.
    type: float
    default: 0.0
  firmware_minimum:
    description:
      - The oldest firmware of the NPUs that will do, such as V(7.8.0.2.212).
      - Where it is empty, that of the release, if its data name one.
    type: str
    default: ""
  docker_root:
    description: Where the engine will keep images, as long as there is none to ask.
    type: path
    default: /var/lib/docker
seealso:
  - module: ascend.pd_rollout.host_reach
  - module: ascend.pd_rollout.check_report
"""

EXAMPLES = r"""
- name: Check the server against the plan
  ascend.pd_rollout.host_check:
    wants: "{{ pd_plan | ascend.pd_rollout.host_requirements(inventory_hostname) }}"
  become: true
"""

RETURN = r"""
ok:
  description: Whether there is no finding of severity C(error).
  type: bool
  returned: always
  sample: true
findings:
  description: What is wrong, worst first.
  type: list
  elements: dict
  returned: always
  sample:
    - code: host-port-taken
      severity: error
      host: null
      instance: null
      variable: null
      chips: []
      message: "port 8004 (API) is taken: python3 (pid 4242)"
      seen: python3 (pid 4242) listens at 0.0.0.0:8004
      expected: nobody listens on it but this deployment
      cure: "ss -ltnp sport = :8004"
      source: the plan's port table
facts:
  description: What servers are compared by.
  type: dict
  returned: always
  sample:
    {interface: eth0, mtu: 1500, driver: 25.5.0, firmware: [7.8.0.2.212], architecture: aarch64, image: true}
listening:
  description: Ports on which the temporary listener stands.
  type: list
  elements: int
  returned: always
  sample: [7001, 8004, 8005]
listener:
  description: How the listener is told to end; null if there is none.
  type: dict
  returned: always
  sample: {pid: 4711, started: 123456}
msg:
  description: The result for people, one line a finding.
  type: str
  returned: always
  sample: all good
"""

from ..module_utils._host import entry
from ..module_utils._module import run


def main() -> None:
    run(entry.CHECK_ARGUMENTS, entry.check)


if __name__ == "__main__":
    main()
