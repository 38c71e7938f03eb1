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
  - Asks C(hccn_tool) and C(npu-smi) everything about the given chips in one call, the chips in parallel and
    one query at a time per chip, each with a time-out. A tool that hangs is killed and never hangs the run.
  - Returns the state of each chip, and findings with code, chips, what was seen, what was expected, a cure
    as a command and the source.
  - Nothing is changed on the server.
  - Which network decides depends on O(fabric). Between the servers of one super pod (Atlas A3) traffic goes
    over HCCS, so the vNIC, the place in the super pod and TLS are errors while the RoCE port's link and
    health are warnings, because in some pods the unused port shows link C(DOWN) and net health C(Init)
    although HCCS works. Over RoCE it is the other way round.
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
      - With an empty list nothing is asked and nothing found.
    type: list
    elements: int
    default: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
  timeout:
    description:
      - Longest time for one query, in seconds.
      - A chip is given up after two time-outs, so the whole call ends soon after twice this time.
    type: float
    default: 10.0
  fabric:
    description:
      - The network between the servers.
      - V(auto) takes O(planned_fabric), or, where that is V(auto) too, HCCS unless the tools work and every
        chip says that it stands in no super pod.
    type: str
    choices: [auto, hccs, roce]
    default: auto
  planned_fabric:
    description:
      - The network between the servers as product and environment of the plan decide it, C(fabric) in it.
      - V(hccs) is Atlas A3, and still gives way to RoCE where every chip says that its server stands in no
        super pod; V(both) is an Atlas A3 whose environment sends one part of the traffic over RoCE.
    type: str
    choices: [auto, hccs, roce, both]
    default: auto
  alone:
    description:
      - Whether the plan has engines on this server only.
      - Then a server that stands in no super pod is checked over HCCS, too, if O(planned_fabric) says so,
        since that connects the chips inside a server.
    type: bool
    default: false
  tls:
    description:
      - The TLS switch that all chips shall have.
      - V(any) demands only that the chips of the server agree, and warns where TLS is on.
    type: str
    choices: [any, "off", "on"]
    default: any
  super_pod:
    description: The Super Pod ID that the server shall be in. Not checked where omitted.
    type: int
  driver_minimum:
    description: The oldest NPU driver that will do, such as V(25.2.0). Not checked where omitted.
    type: str
  hccn_conf:
    description: Path of the file with the addresses of the chips, which the KV transfer reads.
    type: path
    default: /etc/hccn.conf
notes:
  - Most driver versions answer to root only, so run it with C(become). It says so if that is what is missing.
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
  description: The network that the findings were judged for, V(hccs), V(roce) or V(both).
  type: str
  returned: always
  sample: hccs
driver:
  description: Version of the NPU driver.
  type: str
  returned: always
  sample: 25.5.0
chips:
  description: The state of each chip. A value that the chip did not say is null.
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
  description: What is wrong, worst first; chips that show the same are one finding.
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
  description: Whether O(hccn_conf) is not there and an empty one is all that is needed.
  type: bool
  returned: when there are chips to check
  sample: false
queries:
  description: How many commands were run.
  type: int
  returned: always
  sample: 145
seconds:
  description: How long all queries took together, in seconds.
  type: float
  returned: always
  sample: 0.52
msg:
  description: The result for people, one line a finding.
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
