#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: hccn_ping
short_description: Ping chips of other servers from the chips of this one
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Runs all pings of one server in one call, the chips in parallel and one ping at a time for each chip,
    because a chip cannot run more. Each ping has a timeout; one that hangs is killed and counts as failed.
  - Failed pings are results, not failures of the module. M(ascend.pd_rollout.hccn_report) evaluates them.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.hccn_tool
options:
  targets:
    description: For each chip, by its physical id, the addresses to ping, in this order.
    type: dict
    required: true
  kind:
    description:
      - V(hccs_ping) pings vNIC addresses over HCCS (Atlas A3), V(ping) the addresses of the ports over RoCE.
    type: str
    choices: [hccs_ping, ping]
    default: hccs_ping
  timeout:
    description: Timeout of one ping, in seconds.
    type: float
    default: 10.0
seealso:
  - module: ascend.pd_rollout.hccn_mesh
  - module: ascend.pd_rollout.hccn_report
"""

EXAMPLES = r"""
- name: Ping two chips of another server
  ascend.pd_rollout.hccn_ping:
    targets:
      0: [192.168.2.199, 192.168.2.200]
      1: [192.168.2.200]
  become: true
"""

RETURN = r"""
failed_pings:
  description:
    - The pings that did not succeed. C(unknown) is V(true) for those that the tool did not send, because it
      was busy or does not support this ping.
  type: list
  elements: dict
  returned: always
  sample:
    - chip: 0
      address: 192.168.2.199
      seen: 0 of 3 packets received (This pkt send fail!)
count:
  description: The number of pings that were tried.
  type: int
  returned: always
  sample: 3
seconds:
  description: Duration of all pings together, in seconds.
  type: float
  returned: always
  sample: 2.1
msg:
  description: The result as text.
  type: str
  returned: always
  sample: 2 of 3 pings succeeded in 2.1 s
"""

from ..module_utils._hccn import entry
from ..module_utils._module import run


def main() -> None:
    run(entry.PING_ARGUMENTS, entry.ping)


if __name__ == "__main__":
    main()
