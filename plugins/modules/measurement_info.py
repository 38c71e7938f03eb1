#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: measurement_info
short_description: Report the progress of a measurement in a container and renew its lease
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(_measurement).
  - Reports the progress of the commands of the role C(_measurement), and how they ended.
  - Touches the folder's C(heartbeat). Without this the container ends by itself, so that none is left behind
    when no playbook waits any longer.
  - A long poll. It returns when the progress has changed or the commands have ended, and at the latest after
    O(hold). The action M(ascend.pd_rollout.measurement_wait) calls it repeatedly.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.server
options:
  directory:
    description: The measurement's folder on the server.
    type: path
    required: true
  container:
    description: Name of its container.
    type: str
    required: true
  known:
    description: The RV(progress) of the previous report.
    type: str
    default: ""
  hold:
    description: Seconds after which it reports even if nothing has changed.
    type: float
    default: 5
  log_lines:
    description: Number of last log lines that are returned.
    type: int
    default: 15
"""

EXAMPLES = r"""
- name: Report the progress of the benchmark
  ascend.pd_rollout.measurement_info:
    directory: /etc/pd_rollout/pd-benchmark
    container: pd-benchmark
"""

RETURN = r"""
running:
  description: Whether the commands are still running.
  returned: success
  type: bool
exit_code:
  description: Exit code of the commands; V(null) while they run, and if the container left none.
  returned: success
  type: int
  sample: 0
progress:
  description: Progress of the commands, in words.
  returned: success
  type: str
  sample: "run 1 of 2: one request at a time, 7 of 20"
log:
  description: The last lines of the log.
  returned: success
  type: list
  elements: str
"""

from ..module_utils._module import run
from ..module_utils._serving import measurement_status


def main() -> None:
    run(measurement_status.ARGUMENTS, measurement_status.info)


if __name__ == "__main__":
    main()
