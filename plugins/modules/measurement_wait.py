#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: measurement_wait
short_description: Wait for a measurement and show its progress
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(_measurement).
  - An action that polls the server with M(ascend.pd_rollout.measurement_info) and prints a line when there is
    progress.
  - It does not fail if the commands do, so that the results up to then can be fetched first. It returns
    RV(ok) and RV(msg) instead.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.calls
attributes:
  check_mode:
    support: full
    details: Waits for nothing in check mode.
  diff_mode:
    support: none
options:
  title:
    description: A word for what is run.
    type: str
    default: measurement
  directory:
    description: The measurement's folder on the server.
    type: path
    required: true
  container:
    description: Name of its container.
    type: str
    required: true
  timeout:
    description: Seconds after which the measurement counts as failed.
    type: int
    default: 14400
"""

EXAMPLES = r"""
- name: Wait for the benchmark to end
  ascend.pd_rollout.measurement_wait:
    title: benchmark
    directory: /etc/pd_rollout/pd-benchmark
    container: pd-benchmark
  register: outcome
"""

RETURN = r"""
ok:
  description: Whether all commands succeeded.
  returned: success
  type: bool
  sample: true
exit_code:
  description: Exit code of the commands.
  returned: if it is known
  type: int
  sample: 0
seconds:
  description: Duration of the wait in seconds.
  returned: success
  type: float
  sample: 431.2
msg:
  description: What happened, with the last lines of the log if the commands failed.
  returned: success
  type: str
"""
