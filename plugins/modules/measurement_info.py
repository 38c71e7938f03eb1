#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: measurement_info
short_description: Look at a measurement that runs in a container, and let it go on
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(measurement).
  - Reports how far the commands of role C(measurement) are, and how they ended.
  - Touches the folder's C(heartbeat). Without it the container ends by itself, so that none is left behind
    when nobody waits any longer.
  - A long poll. It returns when the progress has changed or the end has come, at the latest after O(hold).
    The action M(ascend.pd_rollout.measurement_wait) calls it again and again.
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
    description: The RV(progress) of the last report.
    type: str
    default: ""
  hold:
    description: Seconds after which the report comes even if nothing has changed.
    type: float
    default: 5
  log_lines:
    description: How many of the last lines of the log are returned at the end.
    type: int
    default: 15
"""

EXAMPLES = r"""
- name: Look at the benchmark
  ascend.pd_rollout.measurement_info:
    directory: /etc/pd_rollout/pd-benchmark
    container: pd-benchmark
"""

RETURN = r"""
running:
  description: Whether the commands are still at work.
  returned: success
  type: bool
exit_code:
  description: How they ended; V(null) while they run, and when the container vanished without leaving word.
  returned: success
  type: int
  sample: 0
progress:
  description: How far they are, in words.
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
