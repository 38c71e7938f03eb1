#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: hccn_check
short_description: Check the NPUs of one server and their network
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Queries C(hccn_tool) and C(npu-smi) about the given chips in one call, the chips in parallel and one query
    at a time for each chip, each with a timeout. A tool that hangs is killed, so it never hangs the run.
  - Returns the state of each chip, and findings with code, chips, the value seen, the value expected, a
    command as the cure, and the source.
  - Nothing is changed on the server.
  - Which network matters depends on O(fabric). Between the servers of one super pod (Atlas A3) traffic uses
    HCCS, so findings about the vNIC, the position in the super pod and TLS are errors, while those about the
    RoCE port's link and health are warnings, because in some pods the unused port shows link C(DOWN) and net
    health C(Init) although HCCS works. Over RoCE it is the reverse.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.hccn_tool
  - ascend.pd_rollout.options.driver
  - ascend.pd_rollout.options.fail
options:
  chips:
    description:
      - Physical ids of the chips to check, as C(hccn_tool -i) counts them.
      - With an empty list nothing is queried and the result is empty.
    type: list
    elements: int
    default: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
  timeout:
    description:
      - Timeout of one query, in seconds.
      - A chip is skipped after two timeouts, so the whole call ends soon after twice this time.
    type: float
    default: 10.0
  fabric:
    description:
      - The network between the servers.
      - V(auto) uses O(planned_fabric). If that is V(auto) too, it uses HCCS, unless the tools work and every
        chip reports that it is not in a super pod.
    type: str
    choices: [auto, hccs, roce]
    default: auto
  planned_fabric:
    description:
      - The network between the servers that follows from the plan's product and environment; C(fabric) in the
        plan.
      - V(hccs) means Atlas A3; RoCE is still used if every chip reports that its server is not in a super
        pod. V(both) means Atlas A3 with an environment that sends part of the traffic over RoCE.
    type: str
    choices: [auto, hccs, roce, both]
    default: auto
  alone:
    description:
      - Whether the plan has engines on this server only.
      - If so, a server that is not in a super pod is also checked over HCCS if O(planned_fabric) is V(hccs),
        because HCCS connects the chips within a server.
    type: bool
    default: false
  tls:
    description:
      - The TLS switch that all chips must have.
      - V(any) only requires that the chips of the server agree, and warns if TLS is on.
    type: str
    choices: [any, "off", "on"]
    default: any
  super_pod:
    description: The Super Pod ID that the server must have. Not checked if omitted.
    type: int
  driver_minimum:
    description: The oldest NPU driver that is accepted, such as V(25.2.0). Not checked if omitted.
    type: str
  hccn_conf:
    description: Path of the file with the chips' addresses, which the KV transfer reads.
    type: path
    default: /etc/hccn.conf
notes:
  - Most driver versions only answer root, so run it with C(become). A finding reports missing privileges.
seealso:
  - module: ascend.pd_rollout.hccn_ping
  - module: ascend.pd_rollout.hccn_report
"""

EXAMPLES = r"""
- name: Check all chips of the server
  ascend.pd_rollout.hccn_check:
  become: true

- name: Check half of a server that is connected by RoCE and must have TLS off
  ascend.pd_rollout.hccn_check:
    chips: [0, 1, 2, 3, 4, 5, 6, 7]
    fabric: roce
    tls: "off"
  become: true
"""

RETURN = r"""
ok:
  description: Whether there is no finding of severity C(error).
  type: bool
  returned: always
  sample: true
fabric:
  description: The network for which the findings were evaluated, V(hccs), V(roce) or V(both).
  type: str
  returned: always
  sample: hccs
driver:
  description: Version of the NPU driver.
  type: str
  returned: always
  sample: 25.5.0
chips:
  description: The state of each chip. A value that the chip did not report is null.
  type: list
  elements: dict
  returned: always
  sample:
    - chip: 0
      link: UP
      net_health: Success
      netdetect: 11.12.165.1
      gateway: 11.12.165.1
      lldp: 400GE1/1/5:1
      ip: 11.12.165.80
      vnic: 192.168.2.199
      vnic_status: UP
      tls: 0
      sdid: 16777216
      super_pod: 0
      super_pod_size: 384
      server_index: 4
      npu_health: OK
findings:
  description: What is wrong, worst first. Chips with the same problem share one finding.
  type: list
  elements: dict
  returned: always
  sample:
    - code: hccn-vnic-down
      severity: error
      host: null
      instance: null
      variable: null
      chips: [3]
      message: "chip 3: vNIC DOWN"
      seen: DOWN
      expected: "vnic link status: UP"
      cure: hccn_tool -i 3 -vnic -g; npu-smi info -t hccs -i $((3 / 2)) -c $((3 % 2))
      source: "vllm-ascend v0.13.0, docs: PD disaggregation, Mooncake, multi-node: verify the environment"
make_conf:
  description: Whether O(hccn_conf) is missing and an empty file is sufficient.
  type: bool
  returned: when there are chips to check
  sample: false
queries:
  description: The number of commands that were run.
  type: int
  returned: always
  sample: 145
seconds:
  description: Duration of all queries together, in seconds.
  type: float
  returned: always
  sample: 0.52
msg:
  description: The result as text, with one line for each finding.
  type: str
  returned: always
  sample: "16 chips, HCCS, driver 25.5.0: all good (145 queries in 0.5 s)"
"""

from ..module_utils._hccn import entry
from ..module_utils._module import run


def main() -> None:
    run(entry.ARGUMENTS, entry.check)


if __name__ == "__main__":
    main()
