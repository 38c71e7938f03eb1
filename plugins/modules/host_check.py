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
  - Checks in one call whether the server meets the plan's requirements. These are devices, free NPUs and
    ports, the NIC with its address and routes, the Docker Engine, disk space, memory, an architecture and
    hardware that match the image, driver and firmware, and relevant kernel parameters.
  - Nothing is changed on the server. With O(listen) a temporary listener stays on the free ports of the
    plan, so that the other servers can test them with M(ascend.pd_rollout.host_reach). It ends when all of
    them have signed off, when that module stops it, and in any case after O(listen_seconds). No
    listener is started if no other server will use a port of this one. It does not answer clients that do
    not know the run's secret.
  - Ports and NPUs that containers of the deployment already use are not reported.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.driver
  - ascend.pd_rollout.options.docker
  - ascend.pd_rollout.options.fail
options:
  requirements:
    description:
      - The plan's requirements for the server, as returned by
        P(ascend.pd_rollout.host_requirements#filter).
    type: dict
    required: true
  listen:
    description: Whether to start the listener.
    type: bool
    default: false
  listen_seconds:
    description: Maximum lifetime of the listener, in seconds.
    type: float
    default: 120.0
  token:
    description:
      - The secret of the run, by which listeners and their clients recognize each other.
      - The action plugin sets it. Without a secret no listener is started.
    type: str
    default: ""
  timeout:
    description: Timeout of one call of C(npu-smi), in seconds.
    type: float
    default: 10.0
  image_gigabytes:
    description: Space that the image needs, in GB. Not checked with V(0), or if the server has the image.
    type: float
    default: 0.0
  image_archive:
    description:
      - Path of the image's archive on the server.
      - If the archive exists, its size is used instead of O(image_gigabytes).
    type: str
    default: ""
  weights_path:
    description: The directory of the weights.
    type: str
    default: ""
  weights_gigabytes:
    description:
      - Space that the weights need, in GB, if their directory does not exist yet.
      - Not checked with V(0).
    type: float
    default: 0.0
  memory_gigabytes:
    description: Memory that the server must have, in GB. Not checked with V(0).
    type: float
    default: 0.0
  firmware_minimum:
    description:
      - The oldest NPU firmware that is accepted, such as V(7.8.0.2.212).
      - If empty, the firmware listed for the release is used, if there is one.
    type: str
    default: ""
  docker_root:
    description: Where the Docker Engine will store images. Only used while no engine answers.
    type: path
    default: /var/lib/docker
seealso:
  - module: ascend.pd_rollout.host_reach
  - module: ascend.pd_rollout.check_report
"""

EXAMPLES = r"""
- name: Check the server against the plan
  ascend.pd_rollout.host_check:
    requirements: "{{ pd_plan | ascend.pd_rollout.host_requirements(inventory_hostname) }}"
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
      message: "port 8004 (API) is in use: python3 (pid 4242)"
      seen: python3 (pid 4242) listens at 0.0.0.0:8004
      expected: only this deployment listens on it
      cure: "ss -ltnp sport = :8004"
      source: the plan's port table
facts:
  description:
    - The facts that are compared between servers.
    - C(drained) is as M(ascend.pd_rollout.deployment_info) returns it; C(lists) are the APIs that the router
      of this server was started with and answers with, C(prefillers) and C(decoders), or null.
    - C(guard) is null, or what the guard of the deployment says. It has C(active), C(given_up) and C(out)
      with instances and the reasons why it no longer starts them or has taken them out of the routers' list,
      and C(closed), why the front is closed.
  type: dict
  returned: always
  sample:
    {interface: eth0, mtu: 1500, driver: 25.5.0, firmware: [7.8.0.2.212], architecture: aarch64, image: true}
listening:
  description: The ports on which the temporary listener accepts connections.
  type: list
  elements: int
  returned: always
  sample: [7001, 8004, 8005]
listener:
  description: The listener's process, by which it can be stopped. Null if there is none.
  type: dict
  returned: always
  sample: {pid: 4711, started: 123456}
msg:
  description: The result as text, with one line for each finding.
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
